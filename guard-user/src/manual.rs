//! `dnsguard completion` and `dnsguard man`: made from the definition of the command line.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man as Page;

use crate::{cli::Cli, print};

/// Examples for the help.
pub(crate) const COMPLETION_EXAMPLES: &str = "\
Examples:
  dnsguard completion bash > /usr/share/bash-completion/completions/dnsguard
  dnsguard completion zsh > /usr/share/zsh/vendor-completions/_dnsguard
  dnsguard completion fish > /usr/share/fish/vendor_completions.d/dnsguard.fish";

/// Examples for the help.
pub(crate) const MAN_EXAMPLES: &str = "\
Examples:
  dnsguard man | man -l -
  dnsguard man --dir /usr/share/man/man1              dnsguard.1, dnsguard-run.1, and so on";

/// `dnsguard completion`
#[derive(Args, Debug)]
pub(crate) struct Completion {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// `dnsguard man`
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Write a page for each command into this directory, which is made if it is not there.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// `dnsguard completion`
///
/// # Errors
///
/// Standard output cannot be written to.
pub(crate) fn completion(asked: &Completion) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut Cli::command(), "dnsguard", &mut script);
    print::print(&String::from_utf8_lossy(&script))
}

/// `dnsguard man`
///
/// # Errors
///
/// Standard output or the directory cannot be written to.
pub(crate) fn man(asked: &Man) -> anyhow::Result<()> {
    let mut command = Cli::command();
    command.build();
    let Some(folder) = &asked.dir else {
        return print::print(&page(&command, "dnsguard")?);
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut written = 0;
    for (name, command) in commands(&command, "dnsguard".to_owned()) {
        let path = folder.join(format!("{name}.1"));
        fs::write(&path, page(&command, &name)?).with_context(|| format!("cannot write {}", path.display()))?;
        written += 1;
    }
    print::print(&format!("{}: {written} manual pages\n", folder.display()))
}

/// A command and all below it, with the names of their pages.
fn commands(command: &clap::Command, name: String) -> Vec<(String, clap::Command)> {
    let mut found = vec![(name.clone(), command.clone())];
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        found.extend(commands(below, format!("{name}-{}", below.get_name())));
    }
    found
}

fn page(command: &clap::Command, name: &str) -> anyhow::Result<String> {
    let mut roff = Vec::new();
    // The page goes by its own name, not by the one that is typed.
    let command = command.clone().display_name(name.to_owned());
    Page::new(command).title(name.to_uppercase()).render(&mut roff)?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command() {
        let mut command = Cli::command();
        command.build();
        let names: Vec<_> = commands(&command, "dnsguard".to_owned())
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        for name in [
            "dnsguard",
            "dnsguard-run",
            "dnsguard-loops-allow",
            "dnsguard-policy-set",
        ] {
            assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
        }
    }
}
