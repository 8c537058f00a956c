//! File descriptors, and the want of them: it shows as anything but itself, so it is looked for.

use std::{fs::File, io};

use nix::libc::{EMFILE, ENFILE};

/// What an error says; and what to do, if it is the want of descriptors.
pub(crate) fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(EMFILE) => {
            format!("{error}: raise the agent's limit (LimitNOFILE, ulimit -n), or see what it has open")
        }
        Some(ENFILE) => format!("{error}: raise fs.file-max, or see who on this host has so many open"),
        _ => error.to_string(),
    }
}

/// Whether none is to be had now, and what to do about it. What fails then says "no such file" as well as anything else.
pub(crate) fn shortage() -> Option<String> {
    let error = File::open("/").err()?;
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE)).then(|| explain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_descriptors_is_told_with_its_remedy() {
        let told = |number| explain(&io::Error::from_raw_os_error(number));
        assert!(told(EMFILE).contains("LimitNOFILE"), "{}", told(EMFILE));
        assert!(told(ENFILE).contains("fs.file-max"), "{}", told(ENFILE));
        assert!(!told(nix::libc::ENOENT).contains("raise"));
        assert_eq!(shortage(), None);
    }
}
