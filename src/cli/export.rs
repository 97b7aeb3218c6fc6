//! `bellwether export`: what belongs to this version, for other tools.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::cli::{DATA, Failure, Global, IO, SOFTWARE, USAGE};
use crate::config;
use crate::profiles::Profile;
use crate::shipped::Kit;
use crate::shipped::kubernetes::{self, Metadata, Monitor};
use crate::shipped::rules::RuleFile;
use crate::shipped::settings::{Setting, listed};

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The JSON Schema of configuration files, for editors.
    Schema,
    /// A profile as YAML: the begin of a configuration of your own.
    Profile {
        /// Its name.
        name: String,
    },
    /// The alert rules for Prometheus.
    Alerts {
        #[command(flatten)]
        numbers: Numbers,
        /// Lists every key that --set takes with its value, and writes no rules.
        #[arg(long)]
        settings: bool,
        /// What stands before the paths of runbooks: where your copy of this project can be read.
        #[arg(long, value_name = "URL")]
        runbooks: Option<String>,
        /// What stands before the paths of dashboards: the address of your Grafana.
        #[arg(long, value_name = "URL")]
        grafana: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// The dashboards for Grafana.
    Dashboards {
        /// Only this one, by its uid.
        uid: Option<String>,
        #[command(flatten)]
        numbers: Numbers,
        /// Writes a file for each into this folder.
        #[arg(long, value_name = "FOLDER")]
        output: Option<PathBuf>,
        #[command(flatten)]
        form: Form,
    },
    /// A PodMonitor or ServiceMonitor for the Prometheus Operator.
    Monitor {
        /// What it selects. A pod without a Service needs `pod`.
        #[arg(long, default_value = "pod")]
        kind: Kind,
        #[command(flatten)]
        form: Form,
    },
}

#[derive(Debug, Args)]
struct Numbers {
    /// Changes a number of a rule, and of the panels that show it.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<Setting>,
}

#[derive(Debug, Args)]
struct Form {
    /// Plain files, or objects of Kubernetes.
    #[arg(long, default_value = "plain")]
    format: Format,
    /// The namespace of the objects.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// A label of the objects, such as the one by which your Prometheus selects rules.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    Plain,
    Kubernetes,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Pod,
    Service,
}

pub(super) fn export(global: &Global, arguments: &ExportArgs) -> Result<ExitCode, Failure> {
    let kit = Kit::of(global.profile.as_deref().unwrap_or("decisionbox"));
    let software = |error| Failure::new(SOFTWARE, error);
    let rules = |numbers: &Numbers| kit.rules(&numbers.changes).map_err(|error| Failure::new(USAGE, error));
    match &arguments.what {
        What::Schema => {
            let schema = serde_json::to_string_pretty(&config::schema()).map_err(|error| Failure::new(SOFTWARE, error))?;
            println!("{schema}");
        }
        What::Profile { name } => {
            let profile = Profile::named(name).ok_or_else(|| {
                let names: Vec<&str> = Profile::all().map(Profile::name).collect();
                Failure::new(USAGE, format!("there is no profile `{name}`; there are {}", names.join(", ")))
            })?;
            print!("{}", profile.text());
        }
        What::Alerts { numbers, settings: true, .. } => print!("{}", listed(&rules(numbers)?)),
        What::Alerts { numbers, runbooks, grafana, form, .. } => {
            let mut rules = rules(numbers)?;
            rules.link(runbooks.as_deref(), grafana.as_deref());
            match form.format {
                Format::Plain => print!("{}", yaml(&rules)?),
                Format::Kubernetes => print!("{}", yaml(&kubernetes::prometheus_rule(&rules, &form.metadata()).map_err(software)?)?),
            }
        }
        What::Dashboards { uid, numbers, output, form } => {
            let rules = rules(numbers)?;
            dashboards(kit, &rules, uid.as_deref(), output.as_deref(), form)?;
        }
        What::Monitor { kind, form } => {
            let kind = match kind {
                Kind::Pod => Monitor::Pod,
                Kind::Service => Monitor::Service,
            };
            print!("{}", yaml(&kubernetes::monitor(kind, &form.metadata()))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn dashboards(kit: Kit, rules: &RuleFile, uid: Option<&str>, output: Option<&Path>, form: &Form) -> Result<(), Failure> {
    let name = |dashboard: &serde_json::Value| dashboard["uid"].as_str().unwrap_or_default().to_owned();
    let all = kit.dashboards(rules).map_err(|error| Failure::new(SOFTWARE, error))?;
    let names: Vec<String> = all.iter().map(name).collect();
    let chosen: Vec<_> = all.into_iter().filter(|dashboard| uid.is_none_or(|uid| name(dashboard) == uid)).collect();
    if chosen.is_empty() {
        return Err(Failure::new(USAGE, format!("there is no dashboard `{}`; there are {}", uid.unwrap_or_default(), names.join(", "))));
    }
    if chosen.len() > 1 && output.is_none() && form.format == Format::Plain {
        let message = format!("there are {}: choose one by its uid, or a folder for all with --output", names.join(", "));
        return Err(Failure::new(USAGE, message));
    }
    for dashboard in &chosen {
        let (text, ending) = match form.format {
            Format::Plain => (serde_json::to_string_pretty(dashboard).map_err(|error| Failure::new(SOFTWARE, error))? + "\n", "json"),
            Format::Kubernetes => {
                let object = kubernetes::config_map(dashboard, &form.metadata()).map_err(|error| Failure::new(SOFTWARE, error))?;
                (format!("---\n{}", yaml(&object)?), "yaml")
            }
        };
        match output {
            None => print!("{text}"),
            Some(folder) => {
                let path = folder.join(format!("{}.{ending}", name(dashboard)));
                std::fs::write(&path, text).map_err(|error| Failure::new(IO, format!("{} cannot be written: {error}", path.display())))?;
            }
        }
    }
    Ok(())
}

fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value).map_err(|error| Failure::new(DATA, error))?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not a label: write key=value"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

// === impl Form ===

impl Form {
    fn metadata(&self) -> Metadata {
        Metadata { namespace: self.namespace.clone(), labels: self.labels.iter().cloned().collect::<BTreeMap<_, _>>() }
    }
}
