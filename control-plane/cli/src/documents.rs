//! Resource files: found, read and located, so that every problem is told with its file and line.
//!
//! What a resource may say is deliberately elsewhere (`outrigger_control::spec`); here is only where its text is.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use outrigger_control::spec::{self, Code, Document, Key, Object, Problem};

use crate::failure::{Doing, Failure};

/// Every document of some files, in order.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    all: Vec<Document>,
}

/// Why there are none.
#[derive(Debug)]
pub(crate) enum NotRead {
    /// The texts have mistakes; all of them, of all files.
    Refused(Vec<Problem>),
    /// A file is not there or can not be read.
    Failed(Failure),
}

impl Documents {
    /// Reads files, the resource files of folders, and standard input (`-`).
    pub(crate) fn read(names: &[String]) -> Result<Self, NotRead> {
        let (mut all, mut problems) = (Vec::new(), Vec::new());
        for (name, text) in texts(names).map_err(NotRead::Failed)? {
            match spec::read(&text, &name) {
                Ok(documents) => all.extend(documents),
                Err(found) => problems.extend(found),
            }
        }
        problems.extend(twice(&all));
        if !problems.is_empty() {
            return Err(NotRead::Refused(problems));
        }
        if all.is_empty() {
            return Err(NotRead::Failed(Failure::usage(format!("{} holds no resources", names.join(", ")))));
        }
        Ok(Self { all })
    }

    pub(crate) fn into_all(self) -> Vec<Document> {
        self.all
    }

    pub(crate) fn objects(&self) -> impl DoubleEndedIterator<Item = &Object> {
        self.all.iter().map(|document| &document.object)
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = Key> {
        self.objects().map(Object::key)
    }

    /// Puts problems of what was sent where a person wrote them: a pointer tells the item (`/items/2/spec/…`).
    pub(crate) fn located(&self, problems: Vec<Problem>) -> Vec<Problem> {
        problems.into_iter().map(|problem| self.place(problem)).collect()
    }

    fn place(&self, problem: Problem) -> Problem {
        let item = split(&problem.pointer).and_then(|(index, pointer)| Some((self.all.get(index)?, pointer)));
        match item {
            Some((document, pointer)) => document.located(Problem { pointer, ..problem }),
            None => problem,
        }
    }
}

/// What is there twice in different files; within one file reading has told it.
fn twice(all: &[Document]) -> Vec<Problem> {
    let mut seen: HashMap<Key, &Document> = HashMap::new();
    let mut problems = Vec::new();
    for document in all {
        let key = document.object.key();
        let Some(first) = seen.insert(key.clone(), document) else { continue };
        let first = first.located(Problem::error("/metadata/name", Code::Duplicate, ""));
        let place = format!("{}:{}", first.file.unwrap_or_default(), first.line.unwrap_or_default());
        let message = format!("{key} is there twice, first at {place}");
        problems.push(document.located(Problem::error("/metadata/name", Code::Duplicate, message)));
    }
    problems
}

/// `/items/2/spec/x` is item 2 at `/spec/x`.
fn split(pointer: &str) -> Option<(usize, String)> {
    let rest = pointer.strip_prefix("/items/")?;
    let (index, below) = rest.split_once('/').map_or((rest, String::new()), |(i, b)| (i, format!("/{b}")));
    Some((index.parse().ok()?, below))
}

/// The largest file that is read: far above any real one, and far below what would hurt.
const LARGEST_FILE: u64 = 16 << 20;

fn texts(names: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut texts = Vec::new();
    for name in names {
        if name == "-" {
            texts.push(("-".to_owned(), bounded("standard input", std::io::stdin())?));
            continue;
        }
        for path in files(Path::new(name))? {
            let shown = path.display().to_string();
            let file = std::fs::File::open(&path).map_err(|e| unreadable(&shown, &e))?;
            let text = bounded(&shown, file)?;
            texts.push((shown, text));
        }
    }
    Ok(texts)
}

/// The file itself, or the resource files of a folder in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let shown = path.display().to_string();
    let metadata = std::fs::metadata(path).map_err(|e| unreadable(&shown, &e))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut files: Vec<PathBuf> = entries
        .doing(format_args!("can not read the folder {shown}"))?
        .iter()
        .map(std::fs::DirEntry::path)
        .filter(|path| path.is_file() && is_resource_file(path))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(Failure::usage(format!("{shown} has no resource files"))
            .hint("they end in .yaml, .yml or .json; folders below are not looked at"));
    }
    Ok(files)
}

fn is_resource_file(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"))
}

fn bounded(shown: &str, from: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    from.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(|e| unreadable(shown, &e))?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(Failure::usage(format!("{shown} is larger than {} MiB", LARGEST_FILE >> 20)));
    }
    Ok(text)
}

fn unreadable(shown: &str, error: &std::io::Error) -> Failure {
    Failure::usage(format!("can not read {shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CART: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: MeshService
metadata: {name: cart, namespace: shop}
spec:
  ports: [{port: 80}]
";

    fn written(folder: &Path, name: &str, text: &str) -> String {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_its_names_and_only_its_resource_files() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), "b.yaml", &CART.replace("cart", "second"));
        written(folder.path(), "a.yml", &CART.replace("cart", "first"));
        written(folder.path(), "readme.md", "not a resource");
        let documents = Documents::read(&[folder.path().display().to_string()]).unwrap();
        let names: Vec<_> = documents.keys().map(|key| key.name.to_string()).collect();
        assert_eq!(names, ["first", "second"]);
    }

    #[test]
    fn the_mistakes_of_all_files_are_told_at_once_each_with_its_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let one =
            written(folder.path(), "one.yaml", &CART.replace("ports", "prots").replace("cart", "Cart!"));
        let two = written(folder.path(), "two.yaml", &CART.replace("80", "99999"));
        let Err(NotRead::Refused(problems)) = Documents::read(&[one.clone(), two.clone()]) else {
            panic!("it was read")
        };
        let mut places: Vec<_> =
            problems.iter().map(|p| (p.file.clone().unwrap(), p.line.unwrap())).collect();
        places.sort();
        assert_eq!(places, [(one.clone(), 3), (one, 5), (two, 5)]);
    }

    #[test]
    fn what_two_files_both_have_is_told_at_the_second_with_the_place_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let one = written(folder.path(), "one.yaml", CART);
        let two = written(folder.path(), "two.yaml", CART);
        let Err(NotRead::Refused(problems)) = Documents::read(&[one.clone(), two.clone()]) else {
            panic!("it was read")
        };
        assert_eq!(problems[0].file, Some(two));
        assert!(problems[0].message.ends_with(&format!("first at {one}:3")), "{}", problems[0].message);
    }

    #[test]
    fn what_the_control_plane_finds_is_told_where_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = written(folder.path(), "all.yaml", &format!("{CART}---\n{}", CART.replace("cart", "web")));
        let documents = Documents::read(std::slice::from_ref(&file)).unwrap();
        let found = Problem::error("/items/1/spec/ports/0/port", Code::Conflict, "taken");
        let placed = documents.located(vec![Problem { line: Some(3), column: Some(200), ..found }]).remove(0);
        assert_eq!((placed.file, placed.line, placed.column), (Some(file), Some(11), Some(12)));
    }

    #[test]
    fn a_file_that_is_not_there_is_a_mistake_of_usage() {
        let Err(NotRead::Failed(failure)) = Documents::read(&["/no/such.yaml".into()]) else { panic!() };
        assert_eq!(failure.exit(), crate::failure::Exit::Usage);
    }
}
