//! The plain manifests: what the chart renders, for those who use `kubectl apply -k`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};

/// Written by hand, in every folder of them.
const KUSTOMIZATION: &str = "kustomization.yaml";
/// Written by hand: Helm makes the namespace itself.
const NAMESPACE: &str = "namespace.yaml";

/// What no longer is true of a file that is applied without Helm.
const OF_HELM: [&str; 2] = ["helm.sh/chart: ", "app.kubernetes.io/managed-by: "];

/// The files to commit: those that have an object, without Helm's labels.
pub(super) fn files(rendered: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let object = |name: &String, text: &str| name.ends_with(".yaml") && !text.trim().is_empty();
    let plain = |text: &str| {
        let lines = text.trim().lines().map(str::trim_end);
        let kept = lines.filter(|line| !OF_HELM.iter().any(|label| line.trim_start().starts_with(label)));
        kept.flat_map(|line| [line, "\n"]).collect()
    };
    rendered
        .iter()
        .filter(|(name, text)| object(name, text))
        .map(|(name, text)| (name.clone(), plain(text)))
        .collect()
}

/// Puts them into a folder, and takes out what is no longer rendered.
pub(super) fn save(folder: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    fs::create_dir_all(folder)?;
    for name in present(folder)?.difference(&files.keys().cloned().collect()) {
        fs::remove_file(folder.join(name))?;
    }
    for (name, text) in files {
        fs::write(folder.join(name), text).with_context(|| format!("write {name}"))?;
    }
    Ok(())
}

/// Whether just these are in a folder, and its kustomization takes each.
pub(super) fn check(folder: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    let kustomization = fs::read_to_string(folder.join(KUSTOMIZATION))
        .with_context(|| format!("read {}", folder.join(KUSTOMIZATION).display()))?;
    for name in present(folder)?.iter().chain(files.keys()) {
        let path = folder.join(name);
        let found = fs::read_to_string(&path).ok();
        ensure!(
            found.as_ref() == files.get(name),
            "{} is not what the chart renders",
            path.display()
        );
        let taken = kustomization.lines().any(|line| line.trim() == format!("- {name}"));
        ensure!(taken, "{} does not take {name}", folder.join(KUSTOMIZATION).display());
    }
    Ok(())
}

/// The files there that are rendered.
fn present(folder: &Path) -> Result<BTreeSet<String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: BTreeSet<String> = names.collect::<Result<_>>()?;
    let rendered = |name: &String| name.ends_with(".yaml") && ![KUSTOMIZATION, NAMESPACE].contains(&name.as_str());
    Ok(names.into_iter().filter(rendered).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> BTreeMap<String, String> {
        let other = ("NOTES.txt".to_owned(), "Well done.".to_owned());
        let empty = ("service.yaml".to_owned(), "\n".to_owned());
        [("a.yaml".to_owned(), text.to_owned()), other, empty].into()
    }

    #[test]
    fn only_objects_are_kept_and_nothing_of_helm_in_them() {
        let text =
            "\nlabels:\n  helm.sh/chart: a-1\n  app: a\n  app.kubernetes.io/managed-by: Helm\ndata: |\n  \n  x\n";
        let expected = [("a.yaml".to_owned(), "labels:\n  app: a\ndata: |\n\n  x\n".to_owned())];
        assert_eq!(files(&rendered(text)), expected.into());
    }

    #[test]
    fn what_is_not_rendered_not_there_or_not_taken_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let new = files(&rendered("a: 1"));
        fs::write(folder.join(KUSTOMIZATION), "resources:\n  - a.yaml\n").unwrap();
        fs::write(folder.join("old.yaml"), "").unwrap();
        assert!(check(folder, &new).is_err(), "old.yaml is too much, a.yaml missing");
        save(folder, &new).unwrap();
        check(folder, &new).unwrap();
        assert!(check(folder, &files(&rendered("a: 2"))).is_err(), "a.yaml is another");
        fs::write(folder.join(KUSTOMIZATION), "resources: []\n").unwrap();
        assert!(check(folder, &new).is_err(), "a.yaml is not taken");
    }
}
