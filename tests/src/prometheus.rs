//! A real Prometheus in a namespace, and its tool.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{Namespace, Process, programs};

/// Where it listens, inside of its namespace.
const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);
/// How long it may take to be there, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked while waiting.
const POLL: Duration = Duration::from_millis(200);

/// A server that scrapes. Dropping it ends it.
#[derive(Debug)]
pub struct Prometheus {
    namespace: Namespace,
    process: Process,
}

impl Prometheus {
    /// The programs it needs, as [`programs::provide`] takes them.
    pub const PROGRAMS: &'static [&'static str] = &["ip", "prometheus", "promtool"];

    /// Starts one with this configuration and these rule files, and waits until it is ready.
    pub fn start(namespace: &Namespace, configuration: &str, rules: &[&str]) -> Result<Self> {
        let mut text = format!("{configuration}rule_files:\n");
        for rules in rules {
            text += &format!("  - {}\n", namespace.file("rules.yaml", rules)?.display());
        }
        let configuration = namespace.file("prometheus.yml", &text)?;
        let mut command = programs::locate("prometheus")?.command();
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg("--storage.tsdb.path=/run/prometheus")
            .arg(format!("--web.listen-address={}", SocketAddr::from(LISTEN)))
            .arg("--log.level=warn");
        let process = namespace.spawn(command)?;
        let prometheus = Self {
            namespace: namespace.clone(),
            process,
        };
        let deadline = Instant::now() + PATIENCE;
        while prometheus.page("/-/ready", &[]).is_err() {
            let is_over = prometheus.process.ended().is_some() || Instant::now() > deadline;
            ensure!(
                !is_over,
                "Prometheus is not ready:\n{}",
                prometheus.process.last_words()
            );
            sleep(POLL);
        }
        Ok(prometheus)
    }

    /// The series that an expression gives now, as the API has them; an error says what is wrong with it.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let mut data = self
            .api("query", &[("query", expression)])
            .context(expression.to_owned())?;
        serde_json::from_value(data["result"].take()).with_context(|| format!("{expression} gives no series"))
    }

    /// The names of all metrics that it has.
    pub fn names(&self) -> Result<Vec<String>> {
        Ok(serde_json::from_value(self.api("label/__name__/values", &[])?)?)
    }

    /// The alerts that fire, as the API has them.
    pub fn firing(&self) -> Result<Vec<Value>> {
        let mut data = self.api("alerts", &[])?;
        let mut alerts: Vec<Value> = serde_json::from_value(data["alerts"].take())?;
        alerts.retain(|alert| alert["state"] == "firing");
        Ok(alerts)
    }

    /// The rules that it evaluates, as the API has them.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let mut data = self.api("rules", &[])?;
        let groups: Vec<Value> = serde_json::from_value(data["groups"].take())?;
        let rules = groups.into_iter().filter_map(|mut group| match group["rules"].take() {
            Value::Array(rules) => Some(rules),
            _ => None,
        });
        Ok(rules.flatten().collect())
    }

    /// Waits until `look` finds something.
    pub fn wait<T>(&self, what: &str, timeout: Duration, look: impl Fn(&Self) -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            ensure!(
                Instant::now() < deadline,
                "{what}: not within {timeout:?}; firing: {:#?}\n{}",
                self.firing()?,
                self.process.last_words()
            );
            sleep(POLL);
        }
    }

    /// What a target says, as text.
    pub fn scrape(&self, target: SocketAddr) -> Result<String> {
        self.get(&format!("http://{target}/metrics"), &[])
    }

    fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let text = self.page(&format!("/api/v1/{path}"), parameters)?;
        let mut answer: Value = serde_json::from_str(&text)?;
        ensure!(answer["status"] == "success", "{path}: {}", answer["error"]);
        Ok(answer["data"].take())
    }

    fn page(&self, path: &str, parameters: &[(&str, &str)]) -> Result<String> {
        self.get(&format!("http://{}{path}", SocketAddr::from(LISTEN)), parameters)
    }

    fn get(&self, url: &str, parameters: &[(&str, &str)]) -> Result<String> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .proxy(None);
        let agent: ureq::Agent = config.build().into();
        self.namespace.run(|| {
            let mut response = agent.get(url).query_pairs(parameters.iter().copied()).call()?;
            let text = response.body_mut().read_to_string()?;
            // Prometheus says with 400 and 422 what is wrong with a query.
            let status = response.status().as_u16();
            ensure!([200, 400, 422].contains(&status), "{url}: {status}: {text}");
            Ok(text)
        })
    }
}

/// Runs `promtool`, with `input` as its standard input, and returns what it says; it has to end well.
pub fn promtool(arguments: &[&str], input: &str) -> Result<String> {
    let mut command = programs::locate("promtool")?.command();
    let pipe = Stdio::piped;
    command.args(arguments).stdin(pipe()).stdout(pipe()).stderr(pipe());
    let mut tool = command.spawn().context("start promtool")?;
    // It reads everything before it says anything; taken, so that the pipe closes behind it.
    let written = tool
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let done = tool.wait_with_output()?;
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    ensure!(
        done.status.success(),
        "promtool {}: {}\n{said}",
        arguments.join(" "),
        done.status
    );
    written.context("promtool does not read what it is given")?;
    Ok(said)
}
