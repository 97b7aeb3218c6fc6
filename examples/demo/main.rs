//! The demo: a real mongod, stand-ins for the application around it, and the sidecar watching all of them.
//!
//! `./demo.sh` builds and starts it. With `--once` it is a test: it plays everything through and ends with 0 or 1.

#![allow(clippy::disallowed_methods, reason = "the bans keep the sidecar testable; the demo is nothing but a composition root")]

mod agent;
mod documents;
mod http;
mod lines;
mod live;
mod mongod;
mod process;
mod scrape;
mod seed;
mod services;
mod sidecar;
mod stage;
mod stand_in;
mod verify;
mod wait;
mod worker;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::stage::Stage;
use crate::verify::Report;

/// Shows Bellwether at work beside a DecisionBox of stand-ins and a real MongoDB
#[derive(Parser)]
struct Arguments {
    /// Play everything through once, verify it, and exit with 0 or 1
    #[arg(long)]
    once: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the demo is when others start it.
#[derive(Subcommand)]
enum Part {
    /// An agent, started by the sidecar's run service
    #[command(hide = true)]
    Agent(worker::Task),
}

/// Whatever asks for the end: Ctrl-C, a service manager, a closed terminal.
struct End {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl End {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn asked_for(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let played = match arguments.part {
        Some(Part::Agent(task)) => worker::play(&task).await.map(|()| true),
        None if arguments.once => once().await,
        None => on_view().await,
    };
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn once() -> Result<bool> {
    let mut end = End::listen()?;
    let mut stage = tokio::select! {
        stage = Stage::set_up() => stage?,
        () = end.asked_for() => return Ok(false),
    };
    let mut report = Report::default();
    let played = tokio::select! {
        played = verify::play(&mut stage, &mut report) => played,
        () = end.asked_for() => Err(anyhow::anyhow!("stopped before everything was verified")),
    };
    let ended = stage.stop().await;
    verify::stopped(&mut report, &ended.status);
    println!("{}", report.summary());
    if !report.all_held() || played.is_err() {
        eprintln!("the last lines of the sidecar's log:\n{}", ended.log);
    }
    played?;
    Ok(report.all_held())
}

async fn on_view() -> Result<bool> {
    let mut end = End::listen()?;
    println!("Starting MongoDB, the stand-ins and the sidecar ...");
    let mut stage = tokio::select! {
        stage = Stage::set_up() => stage?,
        () = end.asked_for() => return Ok(true),
    };
    let played = tokio::select! {
        played = live::play(&mut stage) => played,
        () = end.asked_for() => Ok(()),
    };
    println!("Stopping everything ...");
    let ended = stage.stop().await;
    if played.is_err() || ended.status.is_err() {
        eprintln!("the last lines of the sidecar's log:\n{}", ended.log);
    }
    played?;
    let status = ended.status?;
    ensure!(status.success(), "the sidecar did not stop cleanly: {status}");
    println!("Stopped.");
    Ok(true)
}
