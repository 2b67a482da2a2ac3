//! One decision by plain Casbin, Cedar and regorus: 1,000 agreements of the police with one agency each, loaded as each engine's own
//! documentation shows it, three clauses that permit and a prohibition an agreement. Prints `<engine> <microseconds>` a line; an
//! engine that decides wrongly ends the program.

use std::hint::black_box;
use std::time::Instant;

const AGREEMENTS: usize = 1_000;
/// Decisions that are timed, each on another agreement.
const DECISIONS: usize = 200;
const PURPOSES: [&str; 3] = ["pending-case", "planning", "audit"];
const FROM: &str = "2026-01-01T00:00:00.000Z";
const UNTIL: &str = "2027-01-01T00:00:00.000Z";
const NOW: &str = "2026-07-01T00:00:00.000Z";

type Failed = Box<dyn std::error::Error>;

fn agency(n: usize) -> String {
    format!("agency-{n:05}")
}

/// Agreements that are asked about, spread over all of them.
fn asked() -> impl Iterator<Item = usize> {
    (0..DECISIONS).map(|i| i * 7 % AGREEMENTS)
}

/// Times `decide(agency, purpose)` and checks that it permits what is agreed and nothing else.
fn timed(engine: &str, mut decide: impl FnMut(usize, &str) -> Result<bool, Failed>) -> Result<(), Failed> {
    for (n, purpose, expected) in
        [(0, "planning", true), (999, "audit", true), (5, "profiling", false), (AGREEMENTS, "audit", false)]
    {
        if decide(n, purpose)? != expected {
            return Err(format!("{engine}: wrong on {} for {purpose}", agency(n)).into());
        }
    }
    let begun = Instant::now();
    for n in asked() {
        black_box(decide(n, "planning")?);
    }
    println!("{engine} {:.3}", begun.elapsed().as_secs_f64() * 1e6 / DECISIONS as f64);
    Ok(())
}

fn casbin() -> Result<(), Failed> {
    use casbin::{CoreApi, DefaultModel, Enforcer, MemoryAdapter, MgmtApi};
    let model = "[request_definition]\nr = org, role, act, purp, t\n[policy_definition]\np = org, role, act, purp, nb, na, eft\n\
        [policy_effect]\ne = some(where (p.eft == allow)) && !some(where (p.eft == deny))\n[matchers]\n\
        m = r.org == p.org && r.role == p.role && r.act == p.act && r.purp == p.purp && r.t >= p.nb && r.t < p.na\n";
    let rows = (0..AGREEMENTS).flat_map(|n| {
        let row = |purpose: &str, effect: &str| {
            [&agency(n), "clerk", "query", purpose, FROM, UNTIL, effect].map(str::to_owned).to_vec()
        };
        let permits = PURPOSES.map(|p| row(p, "allow"));
        permits.into_iter().chain([row("profiling", "deny")]).collect::<Vec<_>>()
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let enforcer = runtime.block_on(async {
        let model = DefaultModel::from_str(model).await?;
        let mut enforcer = Enforcer::new(model, MemoryAdapter::default()).await?;
        enforcer.add_policies(rows).await?;
        Ok::<_, casbin::Error>(enforcer)
    })?;
    timed("casbin", |n, purpose| Ok(enforcer.enforce((agency(n), "clerk", "query", purpose, NOW))?))
}

fn cedar() -> Result<(), Failed> {
    use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, RestrictedExpression};
    let mut text = String::new();
    for n in 0..AGREEMENTS {
        let head = format!(
            "(principal == Agency::\"{}\", action == Action::\"query\", resource == Dataset::\"stops\")",
            agency(n)
        );
        for purpose in PURPOSES {
            text += &format!(
                "permit{head} when {{ context.role == \"clerk\" && context.purpose == \"{purpose}\" && context.ms >= 1767225600000 && context.ms < 1798761600000 }};\n"
            );
        }
        text += &format!("forbid{head} when {{ context.purpose == \"profiling\" }};\n");
    }
    let (policies, entities, authorizer) = (text.parse::<PolicySet>()?, Entities::empty(), Authorizer::new());
    timed("cedar", |n, purpose| {
        let principal: EntityUid = format!("Agency::\"{}\"", agency(n)).parse()?;
        let context = Context::from_pairs([
            ("role".to_owned(), RestrictedExpression::new_string("clerk".to_owned())),
            ("purpose".to_owned(), RestrictedExpression::new_string(purpose.to_owned())),
            ("ms".to_owned(), RestrictedExpression::new_long(1_782_864_000_000)),
        ])?;
        let request =
            Request::new(principal, "Action::\"query\"".parse()?, "Dataset::\"stops\"".parse()?, context, None)?;
        Ok(authorizer.is_authorized(&request, &policies, &entities).decision() == Decision::Allow)
    })
}

fn regorus() -> Result<(), Failed> {
    use regorus::{Engine, Value};
    // Rego looks agreements up by agency in its data, as its own guides advise.
    let policy = "package concordat\nimport rego.v1\ndefault allow := false\n\
        allow if { some clause in data.agreements[input.org].permits; fits(clause); not denied }\n\
        denied if { some clause in data.agreements[input.org].prohibits; clause.purp == input.purp }\n\
        fits(c) if { c.role == input.role; c.act == input.act; c.purp == input.purp; input.t >= c.nb; input.t < c.na }\n";
    let agreements: Vec<String> = (0..AGREEMENTS)
        .map(|n| {
            let permit = |p: &str| {
                format!(
                    "{{\"role\":\"clerk\",\"act\":\"query\",\"purp\":\"{p}\",\"nb\":\"{FROM}\",\"na\":\"{UNTIL}\"}}"
                )
            };
            let permits = PURPOSES.map(permit).join(",");
            format!("\"{}\":{{\"permits\":[{permits}],\"prohibits\":[{{\"purp\":\"profiling\"}}]}}", agency(n))
        })
        .collect();
    let mut engine = Engine::new();
    engine.add_policy("concordat.rego".to_owned(), policy.to_owned())?;
    engine.add_data_json(&format!("{{\"agreements\":{{{}}}}}", agreements.join(",")))?;
    timed("regorus", |n, purpose| {
        engine.set_input_json(&format!(
            "{{\"org\":\"{}\",\"role\":\"clerk\",\"act\":\"query\",\"purp\":\"{purpose}\",\"t\":\"{NOW}\"}}",
            agency(n)
        ))?;
        Ok(engine.eval_rule("data.concordat.allow".to_owned())? == Value::Bool(true))
    })
}

fn main() -> Result<(), Failed> {
    casbin()?;
    cedar()?;
    regorus()
}
