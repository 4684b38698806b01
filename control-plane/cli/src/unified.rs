//! Two texts as a unified diff, as `diff -u` and `patch` know it.

use std::fmt::Write;

/// Lines that are told before and after each difference.
const AROUND: usize = 3;
/// More pairs of lines than this are not compared: all of the one goes, all of the other comes.
const MAX_PAIRS: usize = 16 << 20;

/// What turns `old` into `new`; nothing, where they are the same.
pub(crate) fn unified(name: &str, old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    // Lines with their breaks.
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let mut told = format!("--- {name}\n+++ {name}\n");
    for hunk in hunks(&steps(&old, &new)) {
        write_hunk(&mut told, hunk, &old, &new);
    }
    told
}

/// One line, in both texts or in one, with the number of the next line of each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Both(usize, usize),
    Old(usize, usize),
    New(usize, usize),
}

/// A shortest way from one text to the other.
fn steps(old: &[&str], new: &[&str]) -> Vec<Step> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (old.get(head..).unwrap_or(&[]), new.get(head..).unwrap_or(&[]));
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (n, m) = (old_rest.len() - tail, new_rest.len() - tail);
    let common = Common::of(old_rest.get(..n).unwrap_or(&[]), new_rest.get(..m).unwrap_or(&[]));

    let mut steps: Vec<_> = (0..head).map(|k| Step::Both(k, k)).collect();
    let (mut i, mut j) = (0, 0);
    while i < n || j < m {
        if i < n && j < m && common.after(i, j) > common.after(i + 1, j).max(common.after(i, j + 1)) {
            steps.push(Step::Both(head + i, head + j));
            (i, j) = (i + 1, j + 1);
        } else if i < n && (j >= m || common.after(i + 1, j) >= common.after(i, j + 1)) {
            steps.push(Step::Old(head + i, head + j));
            i += 1;
        } else {
            steps.push(Step::New(head + i, head + j));
            j += 1;
        }
    }
    steps.extend((0..tail).map(|k| Step::Both(head + n + k, head + m + k)));
    steps
}

/// How many lines two texts have in common, from each pair of lines to their ends.
struct Common {
    best: Vec<u32>,
    width: usize,
}

impl Common {
    fn of(old: &[&str], new: &[&str]) -> Self {
        let width = new.len() + 1;
        if old.len().saturating_mul(new.len()) > MAX_PAIRS {
            return Self { best: vec![], width };
        }
        let mut common = Self { best: vec![0; (old.len() + 1) * width], width };
        for (i, a) in old.iter().enumerate().rev() {
            for (j, b) in new.iter().enumerate().rev() {
                let rest = common.after(i + 1, j).max(common.after(i, j + 1));
                let best = if a == b { common.after(i + 1, j + 1) + 1 } else { rest };
                if let Some(slot) = common.best.get_mut(i * width + j) {
                    *slot = best;
                }
            }
        }
        common
    }

    fn after(&self, i: usize, j: usize) -> u32 {
        self.best.get(i * self.width + j).copied().unwrap_or(0)
    }
}

/// The steps in pieces: each difference with the lines around it, those that touch in one.
fn hunks(steps: &[Step]) -> Vec<&[Step]> {
    let mut hunks = Vec::<(usize, usize)>::new();
    for (at, _) in steps.iter().enumerate().filter(|(_, step)| !matches!(step, Step::Both(..))) {
        let (from, to) = (at.saturating_sub(AROUND), (at + AROUND + 1).min(steps.len()));
        match hunks.last_mut() {
            Some(last) if last.1 >= from => last.1 = to,
            _ => hunks.push((from, to)),
        }
    }
    hunks.into_iter().filter_map(|(from, to)| steps.get(from..to)).collect()
}

fn write_hunk(told: &mut String, hunk: &[Step], old: &[&str], new: &[&str]) {
    let Some(Step::Both(i, j) | Step::Old(i, j) | Step::New(i, j)) = hunk.first() else { return };
    let olds = hunk.iter().filter(|step| !matches!(step, Step::New(..))).count();
    let news = hunk.iter().filter(|step| !matches!(step, Step::Old(..))).count();
    // Of nothing the line before it is told.
    let number = |first: usize, count: usize| if count == 0 { first } else { first + 1 };
    let _ = writeln!(told, "@@ -{},{olds} +{},{news} @@", number(*i, olds), number(*j, news));
    for step in hunk {
        let (sign, line) = match step {
            Step::Both(i, _) => (' ', old.get(*i)),
            Step::Old(i, _) => ('-', old.get(*i)),
            Step::New(_, j) => ('+', new.get(*j)),
        };
        let line = line.copied().unwrap_or("");
        told.push(sign);
        told.push_str(line);
        if !line.ends_with('\n') {
            told.push_str("\n\\ No newline at end of file\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_come_with_three_lines_around_them() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\nten";
        assert_eq!(
            unified("a", old, new),
            "--- a\n+++ a\n@@ -2,8 +2,9 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n+ten\n\\ No newline at end of file\n"
        );
        assert_eq!(unified("a", old, old), "");
        assert_eq!(unified("a", "", "x\n"), "--- a\n+++ a\n@@ -0,0 +1,1 @@\n+x\n");
    }
}
