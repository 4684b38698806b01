//! `outrigger inject` and `outrigger uninject`: files of Kubernetes objects, and Compose files, made members of the mesh without a
//! cluster, and taken back.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use outrigger_inject::Settings;
use outrigger_inject::compose::{self, Images};
use outrigger_inject::manifest::{self, Failed, Options, Outcome, Rewritten, Told};
use serde_json::{Value, json};

use crate::failure::{Doing, Exit, Failure};
use crate::out;
use crate::unified::unified;

/// The largest text that is read.
const MAX_BYTES: u64 = 16 << 20;

/// Make the workloads of files members of the mesh: Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet,
/// ReplicationController, Job, CronJob, and lists of them. Everything else, every comment and every byte that is not ours
/// stays as it is.
///
/// The result goes to standard output, what was done and why not to standard error. Nothing is written if anything is
/// refused. Pods of a namespace of which nothing is known count as asked for; a Namespace object in the same text, a
/// label of the pod, or --namespace-label says otherwise.
#[derive(Debug, clap::Args)]
pub(crate) struct Inject {
    #[command(flatten)]
    texts: Texts,
    /// What the operator sets for all pods (the control plane's --inject-config), YAML or JSON.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The namespace of objects that name none.
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
    /// A label of every namespace, such as outrigger.dev/inject=enabled. May be repeated.
    #[arg(long = "namespace-label", value_name = "KEY=VALUE", value_parser = label)]
    namespace_labels: Vec<(String, String)>,
    /// With --compose: the image with outrigger-proxy, outrigger-init and a packet filter.
    #[arg(long, value_name = "IMAGE", requires = "compose")]
    proxy_image: Option<String>,
    /// With --compose: the image with outrigger-control and outrigger.
    #[arg(long, value_name = "IMAGE", requires = "compose")]
    control_plane_image: Option<String>,
}

/// Take back what `outrigger inject` did, byte for byte; and what the webhook did, by its status annotation.
#[derive(Debug, clap::Args)]
pub(crate) struct Uninject {
    #[command(flatten)]
    texts: Texts,
}

#[derive(Debug, clap::Args)]
struct Texts {
    /// A file, or - for standard input. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE|-", required_unless_present = "compose")]
    files: Vec<String>,
    /// A Compose file, or - for standard input, in place of Kubernetes objects.
    #[arg(long, value_name = "FILE|-", conflicts_with = "files")]
    compose: Option<String>,
    /// Write each file in place of standard output.
    #[arg(long, conflicts_with = "diff")]
    in_place: bool,
    /// Show what would change (unified diff), in place of the result.
    #[arg(long)]
    diff: bool,
    /// `json`: in place of the result what was done to each workload, for programs.
    #[arg(short = 'o', long = "output", value_enum, default_value_t, conflicts_with = "diff")]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The text.
    #[default]
    Text,
    /// What was done to each workload.
    Json,
}

impl Inject {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        if self.texts.compose.is_some() {
            let own = Images::default();
            let images = Images {
                proxy: self.proxy_image.unwrap_or(own.proxy),
                control_plane: self.control_plane_image.unwrap_or(own.control_plane),
            };
            return self.texts.run(|text| compose::inject(text, &images));
        }
        let settings = settings(self.config.as_deref())?;
        let namespace_labels: BTreeMap<_, _> = self.namespace_labels.into_iter().collect();
        let options = Options { namespace: self.namespace, namespace_labels };
        self.texts.run(|text| manifest::inject(text, &settings, &options))
    }
}

impl Uninject {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        if self.texts.compose.is_some() {
            return self.texts.run(compose::uninject);
        }
        self.texts.run(manifest::uninject)
    }
}

impl Texts {
    fn run(&self, rewrite: impl Fn(&str) -> Result<Rewritten, Failed>) -> Result<ExitCode, Failure> {
        let files = || self.files.iter().chain(&self.compose);
        if self.in_place && files().any(|file| file == "-") {
            return Err(Failure::usage("standard input can not be written in place"));
        }
        let mut done = vec![];
        for name in files() {
            let text = read(name)?;
            let rewritten = rewrite(&text).map_err(|failed| {
                let failure = Failure::new(Exit::Refused, format!("{}: {failed}", shown(name)));
                let template = text.contains("{{") && matches!(failed, Failed::Text(_));
                let hint = "templates are rendered first: helm template … | outrigger inject -f -";
                if template { failure.hint(hint) } else { failure }
            })?;
            done.push((name, text, rewritten));
        }
        if self.output == Output::Json {
            out::value(&report(&done), out::Format::Json)?;
        } else {
            for (name, _, rewritten) in &done {
                rewritten.told.iter().for_each(|told| out::warn(line(name, told)));
            }
        }
        if done.iter().any(|(.., rewritten)| rewritten.is_refused()) {
            out::warn("nothing was written: what is refused must be put right first");
            return Ok(Exit::Refused.into());
        }
        for (name, text, rewritten) in &done {
            self.write(name, text, rewritten)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn write(&self, name: &str, text: &str, rewritten: &Rewritten) -> Result<(), Failure> {
        if self.diff {
            print(&unified(shown(name), text, &rewritten.text))
        } else if self.in_place {
            if rewritten.text == text { Ok(()) } else { replace(Path::new(name), &rewritten.text) }
        } else if self.output == Output::Text {
            print(&rewritten.text)
        } else {
            Ok(())
        }
    }
}

/// What the operator sets for all pods.
pub(crate) fn settings(file: Option<&Path>) -> Result<Settings, Failure> {
    let Some(file) = file else { return Ok(Settings::default()) };
    let text = read(&file.to_string_lossy())?;
    let value = manifest::value(&text)
        .map_err(|e| Failure::usage(format!("{} can not be read: {e}", file.display())))?;
    Settings::from_json(&value).map_err(|problems| {
        let told: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        Failure::new(Exit::Refused, format!("{}:{}", file.display(), told.concat()))
    })
}

fn shown(name: &str) -> &str {
    if name == "-" { "standard input" } else { name }
}

/// The text of a file or of standard input.
pub(crate) fn read(name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let told = |e: std::io::Error| Failure::usage(format!("{}: {e}", shown(name)));
    let read = if name == "-" {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(name).map_err(told)?.take(MAX_BYTES + 1).read_to_string(&mut text)
    };
    let read = read.map_err(told)?;
    if read as u64 > MAX_BYTES {
        return Err(Failure::usage(format!("{}: more than {MAX_BYTES} bytes", shown(name))));
    }
    Ok(text)
}

/// As it is, without a break of our own. A reader that went away is no error.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.doing("can not write to standard output"),
    }
}

/// All of it or nothing: another file takes the place of the first, with its permissions.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    // The file itself, not a link to it.
    let path = path.canonicalize().doing(path.display())?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let permissions = std::fs::metadata(&path).doing(path.display())?.permissions();
    let mut file = tempfile::NamedTempFile::new_in(folder).doing(folder.display())?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).doing(path.display())?;
    file.as_file().set_permissions(permissions).doing(path.display())?;
    file.persist(&path).map_err(|e| Failure::failed(format!("{}: {}", path.display(), e.error)))?;
    Ok(())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    if key.is_empty() { Err("the key is missing".into()) } else { Ok((key.to_owned(), value.to_owned())) }
}

/// What was done to one workload, in a line or several.
fn line(file: &str, told: &Told) -> String {
    let namespace = if told.namespace.is_empty() { String::new() } else { format!("{}/", told.namespace) };
    let title = format!("{}:{}: {} {namespace}{}", shown(file), told.line, told.kind, told.name);
    let mut lines = vec![match &told.outcome {
        Outcome::Injected => format!("{title}: injected"),
        Outcome::Uninjected => format!("{title}: taken back"),
        Outcome::Unchanged => format!("{title}: as it is to be"),
        Outcome::Skipped { reason, message } => format!("{title}: skipped, {message} ({reason})"),
        Outcome::Refused { .. } => format!("{title}: refused"),
    }];
    if let Outcome::Refused { problems } = &told.outcome {
        for problem in problems {
            lines.push(format!("  {}: {}", problem.pointer, problem.message));
            if !problem.hint.is_empty() {
                lines.push(format!("    hint: {}", problem.hint));
            }
        }
    }
    lines.extend(told.warnings.iter().map(|warning| format!("  warning: {}", warning.message)));
    lines.join("\n")
}

fn report(done: &[(&String, String, Rewritten)]) -> Value {
    let files = done.iter().map(|(name, text, rewritten)| {
        json!({
            "file": name,
            "changed": rewritten.text != *text,
            "workloads": rewritten.told,
            "others": rewritten.others,
        })
    });
    json!({ "files": files.collect::<Vec<_>>() })
}
