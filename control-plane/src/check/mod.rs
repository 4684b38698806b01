//! The proven form: what a person wrote, with every reference resolved and every value agreeing with the others.
//!
//! A check sees one object and the world it shall become part of, and tells all problems at once. What passes can be
//! compiled without another look. What is allowed but probably not meant comes back as warnings.

mod access_policy;
mod breaker_override;
mod defaults;
mod denylist;
mod egress;
mod federation;
mod gateway;
mod grant;
mod grants;
mod location;
mod instance;
mod rollout;
mod route;
mod route_filter;
mod service;
mod settings;
mod token_policy;
mod traffic_policy;

pub use access_policy::{CheckedAccess, Selects};
pub use breaker_override::CheckedOverride;
pub use defaults::CheckedDefaults;
pub use gateway::CheckedGateway;
pub use grant::CheckedGrant;
pub use instance::{CheckedInstance, instance_of};
pub(crate) use route::Extension;
pub use route::{CheckedRoute, CheckedRule, GatewayParent, ServiceParent};
pub(crate) use route::{foreign, read_match, taken_by};
pub use route_filter::CheckedFilter;
pub use service::CheckedService;
pub use token_policy::{CheckedExchange, CheckedIssuer, CheckedTokenPolicy};
pub use traffic_policy::{CheckedPolicy, PolicyTarget};

use crate::rollout::Plan;
use crate::spec::{Object, Problem, Severity, Spec};
use crate::world::World;

/// An object that holds, of any kind.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is named as its kind")]
#[allow(clippy::large_enum_variant, reason = "moved once into the world")]
pub enum Checked {
    Service(CheckedService),
    Defaults(CheckedDefaults),
    Gateway(CheckedGateway),
    Route(CheckedRoute),
    Filter(CheckedFilter),
    Grant(CheckedGrant),
    Instance(CheckedInstance),
    Policy(CheckedPolicy),
    Override(CheckedOverride),
    Access(CheckedAccess),
    Tokens(CheckedTokenPolicy),
    Denylist(outrigger_mesh::Denylist),
    Rollout(Plan),
}

/// Checks one object against `world`, in which it may already be in an older form. On success there may be warnings.
pub fn check(object: &Object, world: &World) -> Result<(Checked, Vec<Problem>), Vec<Problem>> {
    check_into(object, world, Found::default())
}

/// Checks one object that was in force before. An instance stays when its service has lost a port it serves: it is only
/// not sent requests for it.
pub(crate) fn check_stored(object: &Object, world: &World) -> Result<(Checked, Vec<Problem>), Vec<Problem>> {
    check_into(object, world, Found { stored: true, dangling: true, ..Found::default() })
}

/// Checks one object that may refer to what is not there, or not granted: that is a state, and told as a warning.
pub(crate) fn check_dangling(
    object: &Object,
    world: &World,
) -> Result<(Checked, Vec<Problem>), Vec<Problem>> {
    check_into(object, world, Found { dangling: true, ..Found::default() })
}

fn check_into(
    object: &Object,
    world: &World,
    mut found: Found,
) -> Result<(Checked, Vec<Problem>), Vec<Problem>> {
    let checked = match &object.spec {
        Spec::MeshService(spec) => service::check(object, spec, world, &mut found).map(Checked::Service),
        Spec::EgressService(spec) => egress::check(object, spec, world, &mut found).map(Checked::Service),
        Spec::MeshDefaults(spec) => defaults::check(object, spec, world, &mut found).map(Checked::Defaults),
        Spec::Gateway(spec) => gateway::check(object, spec, &mut found).map(Checked::Gateway),
        Spec::HttpRoute(spec) => route::check_http(object, spec, world, &mut found).map(Checked::Route),
        Spec::GrpcRoute(spec) => route::check_grpc(object, spec, world, &mut found).map(Checked::Route),
        Spec::TcpRoute(spec) => route::check_tcp(object, spec, world, &mut found).map(Checked::Route),
        Spec::RouteFilter(spec) => route_filter::check(object, spec, world, &mut found).map(Checked::Filter),
        Spec::ReferenceGrant(spec) => grant::check(spec, &mut found).map(Checked::Grant),
        Spec::Instance(spec) => instance::check(object, spec, world, &mut found).map(Checked::Instance),
        Spec::TrafficPolicy(spec) => {
            traffic_policy::check(object, spec, world, &mut found).map(Checked::Policy)
        }
        Spec::BreakerOverride(spec) => {
            breaker_override::check(object, spec, world, &mut found).map(Checked::Override)
        }
        Spec::AccessPolicy(spec) => {
            access_policy::check(object, spec, world, &mut found).map(Checked::Access)
        }
        Spec::TokenPolicy(spec) => token_policy::check(object, spec, world, &mut found).map(Checked::Tokens),
        Spec::Denylist(spec) => denylist::check(object, spec, world, &mut found).map(Checked::Denylist),
        Spec::Rollout(spec) => rollout::check(object, spec, world, &mut found).map(Checked::Rollout),
    };
    match checked {
        Some(checked) if !found.is_fatal() => Ok((checked, found.problems)),
        _ => Err(found.problems),
    }
}

/// The problems found so far.
#[derive(Debug, Default)]
struct Found {
    problems: Vec<Problem>,
    /// Whether the object was in force before.
    stored: bool,
    /// Whether what a route refers to need not be there.
    dangling: bool,
    /// What its regular expressions take.
    expressions: route::Expressions,
}

impl Found {
    fn add(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Something that is referred to is not there, or not granted.
    fn missing(&mut self, problem: Problem) {
        let severity = if self.dangling { Severity::Warning } else { Severity::Error };
        self.add(Problem { severity, ..problem });
    }

    /// A service of several that a policy is for is not there. For the others it holds as it did: that one is taken away must not
    /// open them.
    fn one_is_gone(&mut self, problem: Problem, others: bool) {
        let severity = if self.stored && others { Severity::Warning } else { Severity::Error };
        self.add(Problem { severity, ..problem });
    }

    fn is_fatal(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod rollout_tests;
#[cfg(test)]
mod token_tests;
