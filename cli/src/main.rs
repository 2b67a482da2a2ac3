//! The `concordat` program.

use clap::{CommandFactory, Parser};
use concordat_cli::args::{
    Agreement, Cli, Command, Demo, Evidence, Feed, Ledger, Message, Node, Notice, Op, Query, StopKind, Trust, Verify,
};
use concordat_cli::commands::{
    Ctx, adapter, agreement, apply, break_glass, dataset, dead_letter, evidence, feed, key, ledger_export,
    ledger_timestamp, message, node, notice, op, pod, query, record, replay, role_map, sink, stats, subject,
    subscription, trust, verify, verify_list, verify_report,
};
use concordat_cli::demo;
use concordat_cli::failure::Failure;
use concordat_cli::output::{Format, Output};
use concordat_cli::supervisor::guard;
use concordat_protocol::acts::ApprovalKind;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Node(Node::Guard { parent, command }) = &cli.command {
        // Becomes the command; comes back only when it could not be started.
        eprintln!("error: {}", guard::exec(*parent, command));
        return ExitCode::from(127);
    }
    // One TLS provider for the whole process, before anything can ask for one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    init_log(&cli.command);
    keep_private(&cli.command);
    let ctx = Ctx { out: Output { format: cli.global.output, quiet: cli.global.quiet }, global: cli.global.clone() };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: no runtime: {e}");
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(run(&ctx, &cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match ctx.out.format {
                Format::Table => eprintln!("error: {failure}"),
                Format::Json | Format::Ndjson => eprintln!("{}", failure.to_json()),
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// What these make belongs to one agency: files 0600 and folders 0700, those of the servers that they start too.
fn keep_private(command: &Command) {
    if matches!(
        command,
        Command::Node(_)
            | Command::Demo(_)
            | Command::Adapter(_)
            | Command::Sink(_)
            | Command::Dataset(_)
            | Command::Apply { .. }
            | Command::Pod(_)
            | Command::Key(_)
            | Command::Evidence(_)
    ) {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    }
}

/// Processes of a node log to stderr, which the supervisor keeps; other commands only warn.
fn init_log(command: &Command) {
    let default = if matches!(command, Command::Node(_)) { "info" } else { "error" };
    let filter = EnvFilter::try_from_env("CONCORDAT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let _ = log.try_init();
}

async fn run(ctx: &Ctx, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Demo(d) => match d {
            Demo::Run => demo::run(ctx).await,
            Demo::Up => demo::up(ctx).await,
            Demo::Tour => demo::tour(ctx).await,
            Demo::Status => demo::status(ctx),
            Demo::Stop => demo::stop(ctx),
            Demo::Reset => demo::reset(ctx),
        },
        Command::Node(n) => node::run(ctx, n).await,
        Command::Pod(p) => pod::run(ctx, p).await,
        Command::Key(k) => key::run(ctx, k).await,
        Command::Query(Query::Run(q)) => query::run(ctx, q).await,
        Command::Record(r) => record::run(ctx, r).await,
        Command::BreakGlass(b) => break_glass::run(ctx, b).await,
        Command::Notice(Notice::List { kind, limit }) => notice::list(ctx, kind.as_deref(), *limit).await,
        Command::Agreement(a) => match a {
            Agreement::Tool(tool) => agreement::tool(ctx, tool).await,
            Agreement::Propose { file, days } => agreement::propose(ctx, file, *days).await,
            Agreement::Approve(a) => agreement::approve(ctx, a, ApprovalKind::Activate).await,
            Agreement::Resume(a) => agreement::approve(ctx, a, ApprovalKind::Resume).await,
            Agreement::Suspend(s) => agreement::stop(ctx, s, StopKind::Suspend).await,
            Agreement::Revoke(s) => agreement::stop(ctx, s, StopKind::Revoke).await,
            Agreement::Status { agreement: a } => agreement::status(ctx, a.as_deref()).await,
        },
        Command::Op(Op::List { limit }) => op::list(ctx, *limit).await,
        Command::Op(Op::Show { op, replay: true, documents }) => replay::show(ctx, op, documents.as_deref()).await,
        Command::Op(Op::Show { op, .. }) => op::show(ctx, op).await,
        Command::Op(Op::Receipt { op, file, only_final, wait }) => {
            op::receipt(ctx, op, file.as_ref(), *only_final, *wait).await
        }
        Command::Op(Op::Dispute { op, reason }) => op::dispute(ctx, op, reason).await,
        Command::Verify(Verify::Receipt { file, trust }) => verify::receipt(ctx, file, trust),
        Command::Verify(Verify::Bundle { file, trust }) => evidence::verify(ctx, file, trust),
        Command::Evidence(Evidence::Export(e)) => evidence::export(ctx, e).await,
        Command::Verify(Verify::List { file, trust }) => verify_list::list(ctx, file, trust),
        Command::Verify(Verify::Report { file, trust }) => verify_report::report(ctx, file, trust),
        Command::RoleMap(r) => role_map::run(ctx, r).await,
        Command::Subject(s) => subject::run(ctx, s).await,
        Command::Why { what } => op::why(ctx, what).await,
        Command::Ledger(l) => match l {
            Ledger::Status => op::ledger_status(ctx).await,
            Ledger::Export(e) => ledger_export::export(ctx, e).await,
            Ledger::Witness(w) => ledger_export::witness(ctx, w),
            Ledger::Timestamp(t) => ledger_timestamp::stamp(ctx, t).await,
            Ledger::Timestamps(t) => ledger_timestamp::timestamps(ctx, t).await,
        },
        Command::Adapter(command) => adapter::command(ctx, command).await,
        Command::Feed(Feed::Tail { subscription, tail }) => feed::tail(ctx, subscription.as_deref(), tail).await,
        Command::Feed(Feed::Stats { watch }) => stats::stats(ctx, *watch).await,
        Command::Apply { folder, diff } => apply::apply(ctx, folder, *diff).await,
        Command::Dataset(d) => dataset::run(ctx, d).await,
        Command::Message(Message::Publish(p)) => message::publish(ctx, p).await,
        Command::Subscription(s) => subscription::run(ctx, s).await,
        Command::Sink(s) => sink::run(ctx, s).await,
        Command::DeadLetter(d) => dead_letter::run(ctx, d).await,
        Command::Trust(Trust::Show { trust: file }) => trust::show(ctx, file.as_deref()).await,
        Command::Trust(Trust::Export { file }) => trust::export(ctx, file).await,
        Command::Completion { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "concordat", &mut std::io::stdout());
            Ok(())
        }
    }
}
