//! `outrigger compile`: resources into a plan that a sidecar runs without a control plane.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::failure::Failure;

/// Compile resources without a control plane, for `outrigger-proxy --plan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Compile {
    /// A file, a folder of .yaml, .yml and .json files, or - for standard input. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE|FOLDER|-", required = true)]
    files: Vec<String>,
    /// Where to write the plan.
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: PathBuf,
}

impl Compile {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let _ = (self.files, self.out);
        Err(Failure::failed("not here yet"))
    }
}
