//! The table of a chart's values, from the comments in `values.yaml`.
//!
//! A comment that begins with `# -- ` is about the key below it, as everywhere among charts (helm-docs). Here every
//! value has one, and its default stands on the line of its key.

use anyhow::{Context as _, Result, bail, ensure};

/// Between these two lines of `README.md` is the table.
const BEGIN: &str = "<!-- values -->\n";
const END: &str = "<!-- /values -->\n";

/// One value.
#[derive(Debug, PartialEq, Eq)]
struct Value {
    /// Keys with dots between them.
    path: String,
    default: String,
    about: String,
}

/// A text with the table put between its two marks.
pub(super) fn put(readme: &str, values: &str) -> Result<String> {
    let (before, rest) = readme
        .split_once(BEGIN)
        .with_context(|| format!("there is no line {}", BEGIN.trim()))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("there is no line {}", END.trim()))?;
    let mut table = String::from("| value | default | what it does |\n|---|---|---|\n");
    for value in read(values)? {
        let default = value.default.replace('|', "\\|");
        table += &format!(
            "| `{}` | `{default}` | {} |\n",
            value.path,
            value.about.replace('|', "\\|")
        );
    }
    Ok([before, BEGIN, &table, END, after].concat())
}

fn read(values: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut parents: Vec<(usize, &str)> = Vec::new();
    let mut about: Option<String> = None;
    for (number, line) in values.lines().enumerate() {
        let place = || format!("values.yaml:{}", number + 1);
        let text = line.trim_start();
        if let Some(begun) = text.strip_prefix("# -- ") {
            about = Some(begun.to_owned());
        } else if let Some(more) = text.strip_prefix('#') {
            if let Some(about) = &mut about {
                about.push_str(more);
            }
        } else if !text.is_empty() {
            let indent = line.len() - text.len();
            let (key, default) = text.split_once(':').with_context(|| format!("{}: no key", place()))?;
            parents.retain(|(outer, _)| *outer < indent);
            parents.push((indent, key));
            let default = default.trim();
            match (about.take(), default.is_empty()) {
                (Some(about), false) => {
                    let path: Vec<&str> = parents.iter().map(|(_, key)| *key).collect();
                    found.push(Value {
                        path: path.join("."),
                        default: default.to_owned(),
                        about,
                    });
                }
                (None, true) => {}
                (Some(_), true) => bail!("{}: write the default of {key} on its line", place()),
                (None, false) => bail!("{}: say what {key} does, in a comment `# -- ...` above it", place()),
            }
        }
    }
    ensure!(!found.is_empty(), "values.yaml has no values");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_path_its_default_and_what_is_said_of_it() {
        let values = "# A file.\n\nimage:\n  # -- Where it\n  # is.\n  repository: here\n  # -- Which.\n  tag: \"\"\n\
                      \n# -- On | off.\nmode: off\n";
        let table = put("# Chart\n<!-- values -->\nold\n<!-- /values -->\nend\n", values).unwrap();
        assert_eq!(
            table,
            "# Chart\n<!-- values -->\n| value | default | what it does |\n|---|---|---|\n\
             | `image.repository` | `here` | Where it is. |\n| `image.tag` | `\"\"` | Which. |\n\
             | `mode` | `off` | On \\| off. |\n<!-- /values -->\nend\n"
        );
    }

    #[test]
    fn a_value_without_a_word_about_it_is_refused() {
        let error = read("a:\n  # -- Said.\n  b: 1\n  c: 2\n").unwrap_err().to_string();
        assert_eq!(
            error,
            "values.yaml:4: say what c does, in a comment `# -- ...` above it"
        );
    }

    #[test]
    fn a_default_below_its_key_is_refused() {
        let error = read("# -- Said.\na:\n  - 1\n").unwrap_err().to_string();
        assert_eq!(error, "values.yaml:2: write the default of a on its line");
    }
}
