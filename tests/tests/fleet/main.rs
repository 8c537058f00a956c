//! Many nodes: alerts, recording rules and dashboard, in a real Prometheus that scrapes real agents.

mod dashboard;
mod files;
mod live;
mod pressure;
mod rules;
mod site;
