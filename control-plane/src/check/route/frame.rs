//! What HTTPRoutes and GRPCRoutes have in common around their rules.

use outrigger_mesh::HostPattern;

use super::attach::{attachments, hostnames};
use super::parents::Parents;
use super::{CheckedRoute, CheckedRule, Context, rule, warnings};
use crate::check::Found;
use crate::spec::ParentRef;

/// Whose requests a route takes.
pub(super) struct Frame {
    pub(super) parents: Parents,
    hostnames: Vec<HostPattern>,
}

impl Context<'_> {
    /// Looked at before the rules, of which the names and the numbers of matches are given.
    pub(super) fn frame<'a>(
        &self,
        parents: &[ParentRef],
        names: &[String],
        counts: impl Iterator<Item = (Option<&'a str>, usize)>,
        found: &mut Found,
    ) -> Frame {
        let parents = self.parents(parents, found);
        let hostnames = hostnames(names, &parents.services, found);
        rule::count(counts, found);
        Frame { parents, hostnames }
    }

    /// The whole, if nothing of it is wrong.
    pub(super) fn framed(
        &self,
        frame: Frame,
        rules: Vec<CheckedRule>,
        found: &mut Found,
    ) -> Option<CheckedRoute> {
        if found.is_fatal() {
            return None;
        }
        let Frame { parents: Parents { services: parents, gateways }, hostnames } = frame;
        let checked = CheckedRoute { parents, gateways, hostnames, rules, tcp_rules: vec![] };
        attachments(&checked, &self.key.namespace, self.world, found);
        warnings::add(self.key, &checked, self.world, found);
        Some(checked)
    }
}
