//! In real time: how long an event takes to a healthy upstream while others hang and fail.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Barrier, Mutex},
};

use hookward::gateway::Gateway;
use tokio::{task::JoinSet, time::Instant};

use super::{Scripted, scripted::Act, *};
use crate::{
    counts::reduced,
    world::{NOW_S, configuration, parse, request, sign, within},
};

/// Of each source, per second.
const RATE: u32 = 50;
const SOURCES: [&str; 3] = ["healthy", "hung", "failing"];

fn secret(source: &str) -> String {
    format!("the-secret-of-the-source-{source}")
}

/// A gateway with three sources, each with an upstream of its own.
async fn gateway(upstreams: [&Scripted; 3], clock: &Clock, data: &std::path::Path) -> Gateway {
    let mut text = String::new();
    for source in SOURCES {
        let (secret, upstream) = (secret(source), if source == "healthy" { "up" } else { source });
        let _ = write!(
            text,
            "[sources.{source}]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{secret}\" }}]\nupstream = \"{upstream}\"\n"
        );
    }
    // No breaker: what keeps the lanes apart must not be that the others soon rest.
    for (source, upstream) in SOURCES.into_iter().zip(upstreams).skip(1) {
        let _ = write!(
            text,
            "[upstreams.{source}]\nurl = \"http://{}/\"\ntimeout = \"2s\"\nbreaker = {{ failures = 10000 }}\n",
            upstream.address
        );
    }
    let text = configuration(&text, "", &format!("http://{}/", upstreams[0].address), data);
    Gateway::start(parse(&text, data), clock.clone()).await.expect("the gateway starts")
}

/// From before a webhook is sent until its event is at the healthy upstream: the 99th percentile of `count`. With
/// `in_trouble`, the sources of the two others get as many webhooks at the same time, and those hang and fail; else the
/// others are left alone.
async fn p99(count: u32, in_trouble: bool, begin: &Barrier) -> Duration {
    let arrived = Arc::new(Mutex::new(HashMap::new()));
    let (script, gate) = (arrived.clone(), Arc::new(Semaphore::new(0)));
    let mut healthy = Scripted::start(move |request| {
        script.lock().expect("not poisoned").insert(request.body.clone(), Instant::now());
        Act::Status(200)
    })
    .await;
    let hanging = gate.clone();
    let mut hung = Scripted::start(move |_: &Request| Act::Wait(hanging.clone())).await;
    let mut failing = Scripted::start(|_| Act::Status(500)).await;
    let sources = if in_trouble { &SOURCES[..] } else { &SOURCES[..1] };
    let (clock, data) = (Clock::starting_at(Wall::from_unix_s(NOW_S)), tempfile::TempDir::new().expect("a directory"));
    let gateway = gateway([&healthy, &hung, &failing], &clock, data.path()).await;
    let (mut sending, mut sent, public) = (JoinSet::new(), HashMap::new(), gateway.public);
    begin.wait();
    // In turns, because those of one moment would wait for each other.
    let mut every = tokio::time::interval(SECOND / RATE / 3);
    for number in 0..count {
        for source in SOURCES {
            every.tick().await;
            if !sources.contains(&source) {
                continue;
            }
            let body = format!("{{\"number\":{number}}}").into_bytes();
            if source == "healthy" {
                sent.insert(body.clone(), Instant::now());
            }
            let signed = sign("partssource", &secret(source), &body, clock.wall().unix_s());
            sending.spawn(async move {
                let headers: Vec<_> = signed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let path = format!("/hooks/{source}");
                assert_eq!(request(public, "POST", &path, &headers, &body).await.status, 200);
            });
        }
    }
    sending.join_all().await;
    within("every event to be at the healthy upstream", async {
        for _ in 0..count {
            healthy.requests.recv().await.expect("a request");
        }
    })
    .await;
    let tried = |upstream: &mut Scripted| std::iter::from_fn(|| upstream.requests.try_recv().ok()).count();
    let tried = (tried(&mut hung), tried(&mut failing));
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    assert!(!in_trouble || (tried.0 > 0 && tried.1 > count as usize), "that was no trouble: {tried:?}");
    gateway.drain().await;

    let arrived = arrived.lock().expect("not poisoned");
    let mut took: Vec<Duration> = sent.iter().map(|(body, at)| arrived[body] - *at).collect();
    took.sort_unstable();
    took[(took.len() * 99).div_ceil(100) - 1]
}

/// Both at the same time, so that what else the machine does falls on both; each with threads of its own, so that one
/// which blocks blocks itself.
fn pair(count: u32) -> [Duration; 2] {
    let begin = Barrier::new(2);
    let run = |in_trouble| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(p99(count, in_trouble, &begin))
    };
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| run(false));
        let beside = run(true);
        [alone.join().expect("it ends well"), beside]
    })
}

#[test]
fn a_hung_and_a_failing_upstream_do_not_slow_a_healthy_one_down() {
    let count = reduced("webhooks of each source and run", 150, 1_000);
    let runs: Vec<_> = (0..5).map(|_| pair(count)).collect();
    // Of each pair, because what slows the machine down for a while slows both of a pair.
    let mut ratios: Vec<f64> = runs.iter().map(|[alone, beside]| beside.as_secs_f64() / alone.as_secs_f64()).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    println!("p99 beside a hung and a failing upstream to p99 alone, in the middle of five: {ratio:.2}; {runs:?}");
    assert!(ratio <= 1.5, "{ratio:.2}: {runs:?}");
}
