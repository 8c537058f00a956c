//! A real browser in a namespace: headless Chromium, driven over WebDriver (W3C, with Chromium's logs on top).

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{Namespace, Process, programs};

/// Where chromedriver listens, inside of its namespace.
const DRIVER: ([u8; 4], u16) = ([127, 0, 0, 1], 9515);
/// How long the browser may take to be there.
const START: Duration = Duration::from_secs(60);
/// How long one command may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often is looked while waiting.
const POLL: Duration = Duration::from_millis(100);

/// A browser with one window. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    namespace: Namespace,
    session: String,
    /// Held for its life.
    _driver: Process,
}

impl Browser {
    /// The programs it needs, as [`programs::provide`] takes them.
    pub const PROGRAMS: &'static [&'static str] = &["ip", "chromium", "chromedriver"];

    /// Starts one, with these arguments beside the usual ones.
    pub fn start(namespace: &Namespace, arguments: &[&str]) -> Result<Self> {
        let mut driver = programs::locate("chromedriver")?.command();
        driver.arg(format!("--port={}", DRIVER.1));
        let driver = namespace.spawn(driver)?;
        let deadline = Instant::now() + START;
        while namespace.run(|| TcpStream::connect(SocketAddr::from(DRIVER))).is_err() {
            ensure!(
                Instant::now() < deadline,
                "chromedriver does not listen:\n{}",
                driver.last_words()
            );
            sleep(POLL);
        }
        // A sandbox takes what root does not have in a namespace of ours.
        let usual = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ];
        let quiet = ["--disable-background-networking", "--no-first-run"];
        let place = ["--window-size=1280,1000", "--user-data-dir=/run/chromium"];
        let arguments = [&usual[..], &quiet, &place, arguments].concat();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": arguments, "binary": binary()?},
        }}});
        let made = command(namespace, "", &wanted).context("start Chromium")?;
        let session = made["sessionId"].as_str().context("a session has an ID")?.to_owned();
        let browser = Self {
            namespace: namespace.clone(),
            session,
            _driver: driver,
        };
        // What the first tab of a new profile loads is nobody's page.
        browser.go("about:blank")?;
        browser.requests()?;
        browser.console()?;
        Ok(browser)
    }

    /// Goes to an address, and waits until the page is loaded.
    pub fn go(&self, url: &str) -> Result<()> {
        self.command("url", &json!({"url": url})).map(drop)
    }

    /// Runs the body of a function in the page and returns what it returns.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true in the page.
    pub fn wait(&self, expression: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while self.run(&format!("return Boolean({expression})"))? != json!(true) {
            ensure!(
                Instant::now() < deadline,
                "not true within {timeout:?}: {expression}\n{}",
                self.run("return document.body.innerText")?
            );
            sleep(POLL);
        }
        Ok(())
    }

    /// Has the page think that its window is so large, in CSS pixels: a real window cannot be as narrow as a telephone.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let body = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.command("goog/cdp/execute", &body).map(drop)
    }

    /// Has the page think that its reader likes it `light` or `dark`.
    pub fn prefer(&self, scheme: &str) -> Result<()> {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        let body = json!({"cmd": "Emulation.setEmulatedMedia", "params": media});
        self.command("goog/cdp/execute", &body).map(drop)
    }

    /// A picture of the whole page, as a PNG in base64.
    pub fn picture(&self) -> Result<String> {
        let body = json!({"cmd": "Emulation.setScrollbarsHidden", "params": {"hidden": true}});
        self.command("goog/cdp/execute", &body)?;
        let body = json!({"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": true}});
        let shot = self.command("goog/cdp/execute", &body)?;
        Ok(shot["data"].as_str().context("a picture has data")?.to_owned())
    }

    /// The messages of the console since the last call: errors of scripts, and what a policy has refused.
    pub fn console(&self) -> Result<Vec<String>> {
        let entries = self.command("se/log", &json!({"type": "browser"}))?;
        let entries = entries.as_array().context("a log is a list")?;
        Ok(entries.iter().map(|entry| entry["message"].to_string()).collect())
    }

    /// The addresses that the page has asked for since the last call.
    pub fn requests(&self) -> Result<Vec<String>> {
        let entries = self.command("se/log", &json!({"type": "performance"}))?;
        let mut requests = Vec::new();
        for entry in entries.as_array().context("a log is a list")? {
            let text = entry["message"].as_str().context("an entry has a message")?;
            let message = &serde_json::from_str::<Value>(text)?["message"];
            if message["method"] == "Network.requestWillBeSent" {
                let url = message["params"]["request"]["url"].as_str();
                requests.push(url.context("a request has an address")?.to_owned());
            }
        }
        Ok(requests)
    }

    fn command(&self, path: &str, body: &Value) -> Result<Value> {
        command(&self.namespace, &format!("/{}/{path}", self.session), body)
    }
}

/// The browser ends with its session, and all its processes with it; when it is killed, some of them stay.
impl Drop for Browser {
    fn drop(&mut self) {
        let url = format!("http://{}/session/{}", SocketAddr::from(DRIVER), self.session);
        // A driver that has ended has nothing to end.
        drop(self.namespace.run(|| agent().delete(&url).call()));
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .proxy(None);
    config.build().into()
}

/// One command, and the value that it returns.
fn command(namespace: &Namespace, path: &str, body: &Value) -> Result<Value> {
    let url = format!("http://{}/session{path}", SocketAddr::from(DRIVER));
    let (status, text) = namespace.run(|| -> Result<_> {
        let mut response = agent().post(&url).send(body.to_string())?;
        // Pictures and logs are large.
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string()?;
        Ok((response.status(), text))
    })?;
    let mut answer: Value = serde_json::from_str(&text).with_context(|| format!("{path}: {status}: {text}"))?;
    let value = answer["value"].take();
    ensure!(status == 200, "{path}: {}", value["message"]);
    Ok(value)
}

/// The browser itself. What the package has on `PATH` is a script that looks for it in `/usr`.
fn binary() -> Result<PathBuf> {
    let program = programs::locate("chromium")?;
    Ok(match program.root() {
        Some(root) => root.join("usr/lib/chromium/chromium"),
        None => program.path().to_owned(),
    })
}
