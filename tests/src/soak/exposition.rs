//! The metrics of an agent, as one scrape had them.

use anyhow::{Context as _, Result};

/// The series of one scrape.
#[derive(Clone, Debug, Default)]
pub(super) struct Exposition(Vec<(String, f64)>);

impl Exposition {
    /// Reads the Prometheus text format.
    pub(super) fn read(text: &str) -> Result<Self> {
        let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let series = series.map(|line| {
            let (name, value) = line.rsplit_once(' ').with_context(|| format!("no value: {line}"))?;
            let value = value.parse().with_context(|| format!("no number: {line}"))?;
            Ok((name.to_owned(), value))
        });
        Ok(Self(series.collect::<Result<_>>()?))
    }

    /// The sum over all series of a metric that have every one of these labels, such as `reason="loop"`.
    pub(super) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.of(name, labels).map(|(_, value)| value).sum()
    }

    /// The same of a counter.
    pub(super) fn count(&self, name: &str, labels: &[&str]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// The value of each series of a metric, by the value of this label.
    pub(super) fn by(&self, name: &str, label: &str) -> Vec<(String, f64)> {
        let begin = format!("{label}=\"");
        let of = |series: &str| {
            let (_, rest) = series.split_once(&begin)?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let series = self.of(name, &[]);
        series
            .filter_map(|(series, value)| Some((of(series)?, value)))
            .collect()
    }

    fn of<'a>(&'a self, name: &'a str, labels: &'a [&str]) -> impl Iterator<Item = (&'a str, f64)> {
        let is_it = move |series: &str| {
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
        };
        let series = self.0.iter().map(|(series, value)| (series.as_str(), *value));
        series.filter(move |(series, _)| is_it(series))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_their_labels() {
        let text = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4\nab{x=\"1\"} 100\nc 0.5\n";
        let read = Exposition::read(text).unwrap();
        assert_eq!((read.count("a", &[]), read.count("a", &["x=\"2\""])), (7, 4));
        assert_eq!(read.sum("c", &[]), 0.5);
        assert_eq!(read.by("a", "x"), [("1".to_owned(), 3.0), ("2".to_owned(), 4.0)]);
        assert!(Exposition::read("a b").is_err());
    }
}
