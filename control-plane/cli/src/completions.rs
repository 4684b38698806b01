//! `outrigger completions`: what a shell needs to complete commands and flags.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Arguments;
use crate::out;

/// Print what a shell needs to complete commands and flags.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For this session of bash:    source <(outrigger completions bash)
For every session of bash:   outrigger completions bash > ~/.local/share/bash-completion/completions/outrigger
For zsh, in a folder of fpath:  outrigger completions zsh > _outrigger
For fish:                    outrigger completions fish > ~/.config/fish/completions/outrigger.fish")]
pub(crate) struct Completions {
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> ExitCode {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "outrigger", &mut script);
        out::say(String::from_utf8_lossy(&script).trim_end());
        ExitCode::SUCCESS
    }
}
