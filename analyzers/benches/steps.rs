//! The cost of each step from API responses to findings, on generated clusters:
//! `cargo bench -p kubectl-gpt-analyzers --bench steps`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "measures and reads files")]

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use generated::World;
use kubectl_gpt_analyzers::engine::causes;
use kubectl_gpt_analyzers::{Builder, Cluster, Finding, Kind, Profile, Rule, analyze, rules};

mod generated;

const PODS: [usize; 2] = [1_000, 10_000];
/// One of this many applications crashes, so that there are findings with causes.
const BROKEN_EVERY: usize = 10;

/// The pages of a cluster, and the number of objects on them.
fn pages(pods: usize) -> (Vec<(Kind, String)>, u64) {
    let mut pages = Vec::new();
    World { pods, broken_every: BROKEN_EVERY }.each_page(&mut |kind, body| pages.push((kind, body)));
    let objects = pages.iter().map(|(kind, body)| generated::decode(*kind, body).batch.len() as u64).sum();
    (pages, objects)
}

fn builder(pages: &[(Kind, String)]) -> Builder {
    let mut builder = generated::builder();
    pages.iter().for_each(|(kind, body)| builder.add(generated::decode(*kind, body).batch));
    builder
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decoding");
    group.sample_size(10);
    for pods in PODS {
        let (pages, objects) = pages(pods);
        group.throughput(Throughput::Elements(objects));
        group.bench_with_input(BenchmarkId::from_parameter(pods), &pages, |bencher, pages| {
            bencher.iter_with_large_drop(|| builder(pages));
        });
    }
    group.finish();
}

fn indexing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("indexing");
    group.sample_size(10);
    for pods in PODS {
        let (pages, objects) = pages(pods);
        group.throughput(Throughput::Elements(objects));
        group.bench_with_input(BenchmarkId::from_parameter(pods), &pages, |bencher, pages| {
            bencher.iter_batched(|| builder(pages), generated::build, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn checking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rules");
    group.sample_size(10);
    let all = rules::of(Profile::Default);
    for pods in PODS {
        let (pages, objects) = pages(pods);
        let cluster = generated::build(builder(&pages));
        group.throughput(Throughput::Elements(objects));
        group.bench_with_input(BenchmarkId::from_parameter(pods), &cluster, |bencher, cluster| {
            bencher.iter_with_large_drop(|| analyze(cluster, &all));
        });
    }
    group.finish();
    services(criterion);
}

/// 10,000 Services over 100,000 pods. Comparing every Service with every pod would take hours.
fn services(criterion: &mut Criterion) {
    let mut builder = generated::builder();
    let world = World { pods: 100_000, broken_every: BROKEN_EVERY };
    world.each_page(&mut |kind, body| builder.add(generated::decode(kind, &body).batch));
    let cluster: Cluster = generated::build(builder);
    let all = rules::of(Profile::Default);
    let of_services: Vec<&dyn Rule> = all.into_iter().filter(|rule| rule.meta().id.starts_with("service/")).collect();
    assert!(of_services.len() >= 5);
    let mut group = criterion.benchmark_group("rules of Services");
    group.sample_size(10).throughput(Throughput::Elements(10_000));
    group.bench_function("10000 over 100000 pods", |bencher| {
        bencher.iter_with_large_drop(|| analyze(&cluster, &of_services));
    });
    group.finish();
}

fn causes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("causes");
    let all = rules::of(Profile::Default);
    for pods in PODS {
        let cluster = generated::build(builder(&pages(pods).0));
        let findings = analyze(&cluster, &all).findings;
        assert!(findings.iter().any(|finding| !finding.caused_by.is_empty()));
        group.throughput(Throughput::Elements(findings.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(pods), &findings, |bencher, findings| {
            let link = |mut findings: Vec<Finding>| {
                causes::link(&mut findings, &all);
                findings
            };
            bencher.iter_batched(|| findings.clone(), link, BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(steps, decoding, indexing, checking, causes);
criterion_main!(steps);
