//! What a change costs on its way: encoding once, decoding in each sidecar.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use outrigger_mesh::{FeatureSet, Resource, ResourceKind};
use outrigger_wire::{decode, encode};

fn both_ways(c: &mut Criterion) {
    let known = FeatureSet::all();
    let cases = [
        ("endpoint", Resource::Endpoint(outrigger_benches::endpoint(7)), ResourceKind::Endpoint),
        ("service, 1 route", Resource::Service(outrigger_benches::service(1)), ResourceKind::Service),
        ("service, 100 routes", Resource::Service(outrigger_benches::service(100)), ResourceKind::Service),
    ];
    for (what, resource, kind) in cases {
        let name = resource.name().to_string();
        let payload = encode(&resource);
        let mut group = c.benchmark_group(what);
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(BenchmarkId::from_parameter("encode"), |b| {
            b.iter(|| encode(black_box(&resource)));
        });
        group.bench_function(BenchmarkId::from_parameter("decode"), |b| {
            b.iter(|| decode(kind, &name, black_box(&payload), &known));
        });
        group.finish();
    }
}

criterion_group!(benches, both_ways);
criterion_main!(benches);
