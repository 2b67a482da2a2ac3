//! A city of four agencies on this machine, on real servers with real data, and a tour that checks what it shows.

pub mod assets;
pub mod crash;
pub mod feed;
pub mod follow;
pub mod history;
pub mod looked;
pub mod queries;
pub mod setup;
pub mod source;
pub mod steps;
pub mod tour;

use crate::commands::Ctx;
use crate::commands::node::show_status;
use crate::context::demo_root;
use crate::failure::{Exit, Failure};
use crate::layout::City;
use crate::servers::Servers;
use crate::supervisor;
use std::path::PathBuf;

fn load(root: &std::path::Path) -> Result<City, Failure> {
    if !root.join("city.yaml").is_file() {
        return Err(Failure::new(Exit::NotFound, "no-city", "there is no demo city yet: run `concordat demo up`"));
    }
    Ok(crate::layout::load_city(root, &Servers::find()?.cometbft)?)
}

/// `demo up`: makes the city if there is none, starts it, brings its agreements into force.
pub async fn up(ctx: &Ctx) -> Result<(), Failure> {
    let root = demo_root();
    let city = if root.join("city.yaml").is_file() {
        let city = load(&root)?;
        setup::start(ctx, &city).await?;
        city
    } else {
        setup::create(ctx, &root).await?
    };
    setup::agreements(ctx, &city).await?;
    ctx.out.say("next: concordat demo tour | concordat --context court/clerk query run --help | concordat demo stop");
    Ok(())
}

/// `demo tour`
pub async fn tour(ctx: &Ctx) -> Result<(), Failure> {
    let city = load(&demo_root())?;
    tour::run(ctx, &city).await
}

/// `demo run`: a fresh city, the tour, and everything stopped again unless `DEMO=keep`.
pub async fn run(ctx: &Ctx) -> Result<(), Failure> {
    let keep = std::env::var("DEMO").is_ok_and(|v| v == "keep");
    reset(ctx)?;
    let result = match up(ctx).await {
        Ok(()) => tour(ctx).await,
        Err(e) => Err(e),
    };
    if keep {
        ctx.out.say("the city goes on: concordat demo status | concordat demo stop | concordat demo reset");
    } else {
        stop(ctx)?;
    }
    result
}

fn dirs() -> Vec<PathBuf> {
    let root = demo_root();
    let entries = std::fs::read_dir(&root).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| p.join("node.yaml").is_file() || p.join("exchange.yaml").is_file())
        .collect();
    dirs.sort();
    dirs
}

/// `demo status`
pub fn status(ctx: &Ctx) -> Result<(), Failure> {
    let dirs = dirs();
    if dirs.is_empty() {
        return Err(Failure::new(Exit::NotFound, "no-city", "there is no demo city: run `concordat demo up`"));
    }
    if show_status(ctx, &dirs) {
        Ok(())
    } else {
        Err(Failure::new(Exit::Partial, "not-all-up", "not every process is up: see the logs/ folder of the node"))
    }
}

/// `demo stop`
pub fn stop(ctx: &Ctx) -> Result<(), Failure> {
    let dirs = dirs();
    let mut failed = None;
    for result in supervisor::stop_all(&dirs) {
        failed = result.err().or(failed);
    }
    match failed {
        Some(e) => Err(e.into()),
        None => {
            ctx.out.say(format!("stopped {} nodes", dirs.len()));
            Ok(())
        }
    }
}

/// `demo reset`
pub fn reset(ctx: &Ctx) -> Result<(), Failure> {
    let root = demo_root();
    if !root.exists() {
        return Ok(());
    }
    // Only what this program made is removed.
    let ours = root.join("city.yaml").is_file() || dirs().len() == std::fs::read_dir(&root)?.count();
    if !ours {
        return Err(Failure::new(
            Exit::Conflict,
            "not-ours",
            format!("{} holds something else than a demo city: move it away, or set CONCORDAT_DEMO", root.display()),
        ));
    }
    stop(ctx)?;
    std::fs::remove_dir_all(&root)?;
    Ok(())
}
