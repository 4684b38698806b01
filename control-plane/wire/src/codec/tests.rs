use outrigger_mesh::{Endpoint, EndpointPort, EndpointState, PortNumber, Report, Transport, Weight};
use proptest::prelude::*;

use super::*;
use crate::arbitrary;

fn endpoint() -> pb::Endpoint {
    let port = PortNumber::HTTP;
    let endpoint = Endpoint {
        service: "shop/cart".parse().unwrap(),
        uid: "i-1".parse().unwrap(),
        ip: [127, 0, 0, 1].into(),
        ports: [EndpointPort { port, listen: port, target: None }].into(),
        version: None,
        zone: None,
        weight: Weight::default(),
        transport: Transport::Mesh,
        state: EndpointState::Ready,
    };
    endpoint_to_pb(&endpoint, Vec::new())
}

fn refusal(message: &impl Message, known: &FeatureSet) -> String {
    decode(ResourceKind::Endpoint, "shop/cart/i-1", &message.encode_to_vec(), known).unwrap_err().to_string()
}

/// Sidecars and control planes are of different versions for a while.
#[test]
fn an_older_sidecars_report_is_read_and_of_a_newer_one_what_is_known_here() {
    let older = pb::ReportRequest { traffic: vec![], wanted_keys: vec![], seen: vec![], refusals: vec![] };
    assert_eq!(report_from_pb(&older), Ok(Report::default()));
    let refusals = |reason: &str| pb::Refusals {
        side: pb::Side::Client.into(),
        service: "shop/cart".into(),
        caller: None,
        reason: reason.into(),
        count: 3,
    };
    let newer = pb::ReportRequest { refusals: vec![refusals("of_tomorrow"), refusals("no_route")], ..older };
    let read = report_from_pb(&newer).unwrap().refusals;
    assert_eq!(
        read.iter().map(|(key, count)| (key.reason.as_str(), *count)).collect::<Vec<_>>(),
        [("no_route", 3)]
    );
}

#[test]
fn a_feature_the_reader_lacks_is_named_before_anything_else_is_read() {
    let newer = pb::Endpoint { required_features: vec!["teleport".into()], ..pb::Endpoint::default() };
    let text = refusal(&newer, &FeatureSet::all());
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        text,
        format!(
            "Endpoint shop/cart/i-1: it needs the feature \"teleport\", which this sidecar (version {version}) lacks"
        )
    );
}

#[test]
fn an_older_reader_refuses_what_it_can_not_obey_and_reads_the_rest() {
    let service = |retries| {
        let mut service = outrigger_mesh::Service {
            name: "shop/cart".parse().unwrap(),
            hostnames: Vec::new(),
            ports: vec![outrigger_mesh::Port {
                number: PortNumber::HTTP,
                protocol: outrigger_mesh::Protocol::Http,
            }],
            identities: Vec::new(),
            mtls: outrigger_mesh::MtlsMode::Strict.into(),
            between: outrigger_mesh::Between::Auto,
            addresses: vec![],
            cluster_addresses: vec![],
            location: outrigger_mesh::Location::Mesh,
            http: outrigger_mesh::HttpRules::default(),
            routes: Vec::new(),
            policy: outrigger_mesh::TrafficPolicy::default(),
            for_callers: Vec::new(),
            overrides: Vec::new(),
            tcp_routes: vec![],
            division: None,
            tokens: outrigger_mesh::TokenTravel::Keep,
        };
        service.policy.retry.retries = retries;
        encode(&Resource::Service(service))
    };
    let old = FeatureSet::all().without(Feature::Retry);
    let usual = outrigger_mesh::RetryPolicy::default().retries;
    assert!(decode(ResourceKind::Service, "shop/cart", &service(usual), &old).is_ok());
    let error = decode(ResourceKind::Service, "shop/cart", &service(0), &old).unwrap_err();
    assert!(error.reason().contains("needs the feature \"retry\""), "{error}");
}

#[test]
fn unknown_and_missing_values_are_refused_with_their_field() {
    let all = FeatureSet::all();
    let good = endpoint();
    assert!(decode(ResourceKind::Endpoint, "shop/cart/i-1", &good.encode_to_vec(), &all).is_ok());
    for (bad, expected) in [
        (pb::Endpoint { transport: 0, ..good.clone() }, "transport is missing"),
        (pb::Endpoint { transport: 9, ..good.clone() }, "transport has the value 9"),
        (pb::Endpoint { state: -1, ..good.clone() }, "state has the value -1"),
        (pb::Endpoint { ports: Vec::new(), ..good.clone() }, "a port is missing"),
        (pb::Endpoint { ip: vec![1, 2, 3], ..good.clone() }, "3 bytes"),
        (pb::Endpoint { weight: 0, ..good.clone() }, "0 is not a weight"),
        (pb::Endpoint { weight: 65_636, ..good.clone() }, "65636 is not a weight"),
        (pb::Endpoint { uid: "i-2".into(), ..good.clone() }, "calls itself \"shop/cart/i-2\""),
        (pb::Endpoint { service: "cart".into(), ..good.clone() }, "namespace/name"),
    ] {
        let text = refusal(&bad, &all);
        assert!(text.contains(expected), "{text:?} lacks {expected:?}");
    }
}

#[test]
fn a_feature_that_is_used_must_be_named() {
    let resource = Resource::Inbound(outrigger_mesh::Inbound {
        identity: "spiffe://mesh.local/ns/shop/sa/cart".parse().unwrap(),
        services: vec![outrigger_mesh::InboundService {
            name: "shop/cart".parse().unwrap(),
            mtls: outrigger_mesh::MtlsMode::Off.into(),
            http: outrigger_mesh::HttpRules::default(),
            between: outrigger_mesh::Between::Auto,
            ports: vec![(PortNumber::HTTP, outrigger_mesh::Protocol::Http)],
            protection: outrigger_mesh::Protection::default(),
            tokens: None,
            longest: outrigger_mesh::Longest::default(),
            access: outrigger_mesh::Access::default(),
        }],
    });
    let mut message = pb::Inbound::decode(encode(&resource)).unwrap();
    assert_eq!(message.required_features, ["mtls-mode"]);
    message.required_features.clear();
    let error =
        decode(ResourceKind::Inbound, "shop/cart", &message.encode_to_vec(), &FeatureSet::all()).unwrap_err();
    assert!(error.reason().contains("without naming it"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_resource_reads_back_as_it_was(resource in arbitrary::resource()) {
        let encoded = Encoded::new(&resource);
        let name = encoded.name.to_string();
        let back = decode(encoded.name.kind(), &name, &encoded.payload, &FeatureSet::all());
        prop_assert_eq!(back.as_ref(), Ok(&resource));
        prop_assert_eq!(Encoded::new(&back.unwrap()), encoded);
    }

    #[test]
    fn a_report_reads_back_as_it_was(report in arbitrary::report()) {
        prop_assert_eq!(report_from_pb(&report_to_pb(&report)), Ok(report));
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), name in "\\PC{0,40}",
    ) {
        for kind in ResourceKind::ALL {
            let _ = decode(kind, &name, &bytes, &FeatureSet::all());
        }
    }

    #[test]
    fn a_changed_byte_never_panics_and_what_still_reads_is_sound(
        resource in arbitrary::resource(), at in any::<prop::sample::Index>(), to in any::<u8>(),
    ) {
        let encoded = Encoded::new(&resource);
        let mut bytes = encoded.payload.to_vec();
        *at.get_mut(&mut bytes) = to;
        let name = encoded.name.to_string();
        if let Ok(read) = decode(encoded.name.kind(), &name, &bytes, &FeatureSet::all()) {
            let again = Encoded::new(&read);
            prop_assert_eq!(decode(again.name.kind(), &name, &again.payload, &FeatureSet::all()), Ok(read));
        }
    }
}
