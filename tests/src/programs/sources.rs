//! The Debian mirrors this system already uses, read from apt's own sources.

use std::{fs, path::Path};

use anyhow::Result;

/// Names of Debian releases, as they stand in a source. Other archives use them too; the path tells those apart.
const RELEASES: &[&str] = &[
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// The URIs of every Debian archive in the system's sources, in order, each once.
pub(super) fn debian_mirrors() -> Result<Vec<String>> {
    let mut texts = vec![(false, fs::read_to_string("/etc/apt/sources.list").unwrap_or_default())];
    let parts = Path::new("/etc/apt/sources.list.d");
    let mut files: Vec<_> = fs::read_dir(parts)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    for path in files {
        match path.extension().and_then(|kind| kind.to_str()) {
            Some("list") => texts.push((false, fs::read_to_string(&path)?)),
            Some("sources") => texts.push((true, fs::read_to_string(&path)?)),
            _ => {}
        }
    }
    let mut mirrors = Vec::new();
    for (deb822, text) in texts {
        let found = if deb822 { from_deb822(&text) } else { from_lines(&text) };
        for mirror in found {
            if !mirrors.contains(&mirror) {
                mirrors.push(mirror);
            }
        }
    }
    Ok(mirrors)
}

/// `deb [options] URI suite component...`
fn from_lines(text: &str) -> Vec<String> {
    let entry = |line: &str| {
        let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let main = words.any(|component| component == "main");
        (main && is_debian(uri, suite)).then(|| uri.to_owned())
    };
    text.lines().filter_map(entry).collect()
}

/// Stanzas of `Field: value`, a value going on in indented lines (deb822).
fn from_deb822(text: &str) -> Vec<String> {
    let mut mirrors = Vec::new();
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect();
    for stanza in text.split("\n\n") {
        let words = |field: &str| -> Vec<&str> {
            let mut inside = false;
            let mut found = Vec::new();
            for line in stanza.lines() {
                let value = if line.starts_with(char::is_whitespace) {
                    line
                } else if let Some((name, value)) = line.split_once(':') {
                    inside = name.eq_ignore_ascii_case(field);
                    value
                } else {
                    continue;
                };
                if inside {
                    found.extend(value.split_whitespace());
                }
            }
            found
        };
        let on = words("Enabled").first() != Some(&"no");
        if on && words("Types").contains(&"deb") && words("Components").contains(&"main") {
            let suites = words("Suites");
            let debian = |uri: &&str| suites.iter().any(|suite| is_debian(uri, suite));
            mirrors.extend(words("URIs").into_iter().filter(debian).map(str::to_owned));
        }
    }
    mirrors
}

/// Whether an entry is the Debian archive itself: not its security archive, nor a third party's for Debian.
fn is_debian(uri: &str, suite: &str) -> bool {
    let suite = suite.strip_suffix("-updates").unwrap_or(suite);
    let path = uri.trim_end_matches('/');
    // A mirror list is a file; what is in it is vouched for by the keys, like everything else.
    let listed = uri.starts_with("mirror+file:") && path.contains("debian") && !path.contains("security");
    RELEASES.contains(&suite) && (path.ends_with("/debian") || listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_sources_give_the_debian_mirror_only() {
        let text = "\
            # deb http://commented.invalid/debian bookworm main\n\
            deb http://mirror.invalid/debian/ bookworm main contrib # note\n\
            deb [arch=amd64 signed-by=/k.gpg] http://second.invalid/debian trixie-updates main\n\
            deb-src http://source.invalid/debian bookworm main\n\
            deb http://mirror.invalid/debian-security bookworm-security main\n\
            deb http://vendor.invalid/linux/debian bookworm stable\n\
            deb http://php.invalid/php bookworm main\n\
            deb http://archive.invalid/ubuntu noble main\n";
        let expected = ["http://mirror.invalid/debian/", "http://second.invalid/debian"];
        assert_eq!(from_lines(text), expected);
    }

    #[test]
    fn deb822_sources_give_the_debian_mirror_only() {
        let text = "\
Types: deb deb-src
# a comment between
URIs: http://mirror.invalid/debian
 http://second.invalid/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /k.gpg

Types: deb
URIs: http://mirror.invalid/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.invalid/debian
Suites: bookworm
Components: main

Types: deb
URIs: mirror+file:///etc/apt/mirrors/debian.list
Suites: trixie
Components: main
";
        let expected = [
            "http://mirror.invalid/debian",
            "http://second.invalid/debian",
            "mirror+file:///etc/apt/mirrors/debian.list",
        ];
        assert_eq!(from_deb822(text), expected);
    }
}
