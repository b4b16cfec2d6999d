//! Drills: load, a fault, and an account of what the clients lost. Rounds follow each other on one cluster; each has
//! objects, clients and a history of its own, and ends with all replicas holding the same.

mod clients;
mod faults;
mod report;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use self::clients::{Finished, Load, Way};
use self::faults::{FAULTS, Fault, Stage};
use self::report::{Report, Round};
use crate::client::Client;
use crate::cluster::{self, Cluster};
use crate::history::{History, judge, longest_gap};
use crate::rig::Need;

#[derive(clap::Args)]
#[group(id = "drill")]
pub struct Args {
    /// What to do to the cluster in each round
    #[arg(value_name = "FAULT", value_parser = drills())]
    fault: Drill,
    #[command(flatten)]
    cluster: cluster::Args,
    /// How many rounds
    #[arg(long, default_value_t = 20)]
    repeat: usize,
    /// Decides what is random: faults of mixed drills, victims, requests. Drawn and printed if not given
    #[arg(long)]
    seed: Option<u64>,
    /// How many milliseconds what is broken stays broken
    #[arg(long, default_value_t = 2000)]
    hold: u64,
    /// Half of them talk to the balancer, the others to one replica each
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Likewise
    #[arg(long, default_value_t = 4)]
    watchers: usize,
    /// Fail when in any round nothing could be written for longer than this many milliseconds
    #[arg(long)]
    max_gap: Option<u64>,
    /// Keep the histories, a line for each round, for `kontiki-chaos check`
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// How to print the result
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Json,
}

/// A fault of the table; None: another one in each round.
type Drill = Option<&'static Fault>;

fn drills() -> impl TypedValueParser<Value = Drill> {
    let mixed = PossibleValue::new("mixed").help("another of these in each round");
    let names = FAULTS.iter().map(|fault| PossibleValue::new(fault.name).help(fault.about)).chain([mixed]);
    PossibleValuesParser::new(names).map(|name| FAULTS.iter().find(|fault| fault.name == name))
}

/// Load before a fault and after it.
const CALM: Duration = Duration::from_secs(1);
/// How long replicas may take to hold the same once nobody writes.
const SETTLE: Duration = Duration::from_secs(30);
/// A drill that can't be done here.
const CANNOT: u8 = 2;

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut faults = Vec::new();
    for fault in args.fault.map_or_else(|| FAULTS.iter().collect(), |fault| vec![fault]) {
        match fault.needs.iter().find_map(|need| need.missing()) {
            Some(reason) => eprintln!("SKIPPED {}: {reason}", fault.name),
            None => faults.push(fault),
        }
    }
    if faults.is_empty() {
        return Ok(ExitCode::from(CANNOT));
    }
    tokio::select! {
        result = drill(&args, &faults) => result,
        // Everything that was set up is taken down again.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

async fn drill(args: &Args, faults: &[&'static Fault]) -> anyhow::Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let needs: BTreeSet<Need> = faults.iter().flat_map(|fault| fault.needs).copied().collect();
    let cluster = Cluster::start(&args.cluster, &needs).await?;
    eprintln!(
        "{} replicas behind {}, {}; logs in {}; seed {seed}",
        cluster.all().len(),
        cluster.access.server,
        cluster.network(),
        cluster.dir().display()
    );
    let admin = cluster.access.client();
    clients::prepare(&admin).await?;
    let mut kept = args.history.as_deref().map(File::create).transpose()?;
    let mut stage = Stage {
        cluster,
        rng: StdRng::seed_from_u64(seed),
        hold: Duration::from_millis(args.hold),
        violations: Vec::new(),
    };
    let mut report = Report::new(seed);
    for number in 1..=args.repeat {
        // So that a round draws the same whatever happened in those before it.
        stage.rng = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
        let Some(fault) = faults.choose(&mut stage.rng) else { break };
        let round = round(&mut stage, fault, args, &admin, number, kept.as_mut()).await;
        let round = round.with_context(|| format!("round {number}, {}", fault.name))?;
        round.print(number);
        report.rounds.push(round);
    }
    match args.output {
        Some(Output::Json) => println!("{:#}", report.json()),
        None => report.print(),
    }
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn round(
    stage: &mut Stage,
    fault: &'static Fault,
    args: &Args,
    admin: &Client,
    number: usize,
    kept: Option<&mut File>,
) -> anyhow::Result<Round> {
    let (cluster, all) = (&stage.cluster, stage.cluster.all());
    let way = |number: usize| match number % 2 {
        1 if !fault.removes => Way { client: cluster.replica_client(all[number / 2 % all.len()]), balanced: false },
        _ => Way { client: cluster.access.client(), balanced: true },
    };
    let clients = (0..args.clients).map(way).collect();
    let watchers = (0..args.watchers).map(|number| way(number).client).collect();
    let load = Load::start(admin, clients, watchers, stage.rng.random(), number).await?;
    tokio::time::sleep(CALM).await;
    let began = Instant::now();
    let note = (fault.inflict)(stage).await?;
    for index in stage.cluster.all() {
        stage.cluster.wait_ready(index).await?;
    }
    let took = began.elapsed();
    tokio::time::sleep(CALM).await;
    let Finished { history, errors, revision } = load.finish(admin, number).await?;
    if let Some(file) = kept {
        writeln!(file, "{}", serde_json::to_string(&history)?)?;
    }
    let verdict = judge(&history);
    let gap = longest_gap(&history);
    let mut violations: Vec<String> = verdict.violations().collect();
    violations.append(&mut stage.violations);
    violations.extend(errors.other.iter().map(|(text, count)| format!("{count} times {text}")));
    violations.extend(differences(&stage.cluster, revision).await?);
    if errors.unanswered > 0 && !fault.mute {
        violations.push(format!("{} requests had no answer in {:?}", errors.unanswered, clients::PATIENCE));
    }
    if fault.planned {
        let failed = errors.balanced.iter();
        violations.extend(failed.map(|(text, count)| format!("{count} times through the balancer: {text}")));
    }
    if let Some(most) = args.max_gap.filter(|most| gap > Duration::from_millis(*most)) {
        violations.push(format!("nothing could be written for {} ms; --max-gap is {most}", gap.as_millis()));
    }
    clients::clean_up(admin).await?;
    Ok(Round { fault, note, took, gap, verdict, errors, violations, watchers: history.watchers })
}

/// What replicas say of their states, if they don't all hold the same.
async fn differences(cluster: &Cluster, revision: u64) -> anyhow::Result<Option<String>> {
    let began = Instant::now();
    loop {
        let states =
            futures_util::future::try_join_all(cluster.all().into_iter().map(|index| cluster.own_status(index))).await;
        // Something is written now and then by the replicas themselves: hashes are of the same revision or say nothing.
        if let Ok(states) = &states
            && states.iter().all(|state| state.revision == states[0].revision && state.revision >= revision)
        {
            let same = states.iter().all(|state| state.state_hash == states[0].state_hash && !state.diverged);
            return Ok((!same).then(|| format!("the replicas differ: {states:?}")));
        }
        if began.elapsed() > SETTLE {
            return Ok(Some(format!("the replicas don't all get to revision {revision}: {states:?}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `kontiki-chaos check`: judges histories that a drill kept.
pub fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut failed = false;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let history: History = serde_json::from_str(line).with_context(|| format!("line {number}"))?;
        let verdict = judge(&history);
        let (operations, acknowledged) = (history.operations.len(), verdict.acknowledged);
        println!("round {number}: {operations} operations, {acknowledged} writes acknowledged");
        for violation in verdict.violations() {
            failed = true;
            println!("  {violation}");
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
