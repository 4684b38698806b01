//! What a request costs before it meets a socket: finding its route, dividing a split, choosing an endpoint.
#![allow(clippy::expect_used, reason = "a measurement")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use outrigger_mesh::{Balance, RequestHead, RouteIndex, Split};
use outrigger_proxy::attempt::balance::{self, Asked};
use outrigger_proxy::config::snapshot::{EndpointSet, EndpointView};
use outrigger_proxy::live::{EndpointLive, Live, Millis};

fn route_match(c: &mut Criterion) {
    let mut group = c.benchmark_group("route match");
    let headers = HeaderMap::new();
    for routes in [1, 10, 100, 1_000, 10_000] {
        let index = RouteIndex::new(&outrigger_benches::service(routes).routes);
        let path = format!("/area-{}/items/7/reviews", routes / 2);
        let head = RequestHead {
            method: &Method::GET,
            path: &path,
            query: None,
            headers: &headers,
            claims: None,
            source: outrigger_mesh::Source::default(),
        };
        assert!(index.find(&head).is_some());
        group
            .bench_function(BenchmarkId::from_parameter(routes), |b| b.iter(|| index.find(black_box(&head))));
    }
    group.finish();
}

/// A path as long as a head may be, of as many segments as go into it, among routes whose prefixes are short.
fn route_match_of_long_paths(c: &mut Criterion) {
    let index = RouteIndex::new(&outrigger_benches::service(100).routes);
    let (headers, path) = (HeaderMap::new(), "/a".repeat(8_192));
    let head = head(&path, &headers);
    c.bench_function("route match of a path of 8,192 segments", |b| b.iter(|| index.find(black_box(&head))));
}

/// Routes that are told apart by what is costly elsewhere: the value of a header, an expression over the path.
fn route_match_beyond_paths(c: &mut Criterion) {
    let mut headers = HeaderMap::new();
    let mut group = c.benchmark_group("route match by header");
    for routes in [10_usize, 1_000, 10_000] {
        let index = RouteIndex::new(&outrigger_benches::routes_by_header(routes));
        let tenant = format!("tenant-{}", routes / 2);
        headers.insert("x-tenant", tenant.parse().expect("a header's value"));
        let head = head("/items/7/reviews", &headers);
        assert_eq!(index.position(&head), Some(routes / 2));
        group
            .bench_function(BenchmarkId::from_parameter(routes), |b| b.iter(|| index.find(black_box(&head))));
    }
    group.finish();
    let mut group = c.benchmark_group("route match by expression");
    for routes in [1_usize, 10, 100, 1_000] {
        let index = RouteIndex::new(&outrigger_benches::routes_by_expression(routes));
        let path = format!("/area-{}/items/7/reviews", routes / 2);
        let head = head(&path, &headers);
        assert_eq!(index.position(&head), Some(routes / 2));
        group
            .bench_function(BenchmarkId::from_parameter(routes), |b| b.iter(|| index.find(black_box(&head))));
    }
    group.finish();
}

fn head<'a>(path: &'a str, headers: &'a HeaderMap) -> RequestHead<'a> {
    let source = outrigger_mesh::Source::default();
    RequestHead { method: &Method::GET, path, query: None, headers, claims: None, source }
}

fn split_by_key(c: &mut Criterion) {
    let split = Split::new([90, 10]);
    let names = [outrigger_mesh::key_hash(b"shop/cart v1"), outrigger_mesh::key_hash(b"shop/cart v2")];
    c.bench_function("split of two by a key", |b| {
        b.iter(|| {
            let key = outrigger_mesh::key_hash(black_box(b"user-4711"));
            split.pick_by_key(key, |at| names[at], |_| true)
        });
    });
}

fn split(c: &mut Criterion) {
    let split = Split::new([90, 10]);
    let mut chance = 1_u64;
    c.bench_function("split of two", |b| {
        b.iter(|| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            split.pick(black_box(chance))
        });
    });
}

fn balance_pick(c: &mut Criterion) {
    let live = Live::default();
    let mut group = c.benchmark_group("balance pick");
    for endpoints in [3, 100, 10_000] {
        let views = (0..endpoints).map(|i| {
            let endpoint = outrigger_benches::endpoint(i);
            let traffic = live.client_traffic(&endpoint.service, endpoint.version.as_ref());
            Arc::new(EndpointView {
                live: Arc::new(EndpointLive::new(endpoint.uid.clone(), traffic)),
                endpoint,
                resolved: None,
            })
        });
        let set = EndpointSet::new(views.collect(), true);
        let how = Balance::default();
        let asked = Asked { balance: &how, allow_all_open: false, key: None, tried: &[], now: Millis::now() };
        group.bench_function(BenchmarkId::from_parameter(endpoints), |b| {
            b.iter(|| {
                let picked = balance::pick(black_box(set.subset(None)), &asked, || fastrand::u64(..));
                picked.map(|picked| picked.view.live.id)
            });
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    route_match,
    route_match_of_long_paths,
    route_match_beyond_paths,
    split,
    split_by_key,
    balance_pick
);
criterion_main!(benches);
