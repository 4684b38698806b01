//! Who plays: the services of the shop and how many instances of each version.

/// One version of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) service: &'static str,
    pub(super) version: &'static str,
    pub(super) program: Program,
    pub(super) instances: usize,
}

/// What runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// One of ours, by its file name.
    Binary(&'static str),
    /// A script for python3, whole.
    Python(&'static str),
}

impl Part {
    /// `shop/cart`.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", super::plant::NAMESPACE, self.service)
    }

    /// `cart`, or `prices-v2` where there is more than one version.
    pub(super) fn label(&self) -> String {
        if self.service == "prices" {
            format!("{}-{}", self.service, self.version)
        } else {
            self.service.into()
        }
    }
}

/// Everyone, callers last. Two of each, so that one is there while the other restarts or dies.
pub(super) fn cast(python: bool) -> Vec<Part> {
    let part = |service, version, program| Part { service, version, program, instances: 2 };
    let mut all = vec![
        part("prices", "v1", Program::Binary("shop-prices")),
        part("prices", "v2", Program::Binary("shop-prices")),
        part("reviews", "v1", Program::Binary("shop-reviews")),
    ];
    if python {
        all.push(part("recommendations", "v1", Program::Python(RECOMMENDATIONS)));
    }
    all.push(part("cart", "v1", Program::Binary("shop-cart")));
    all.push(part("web", "v1", Program::Binary("shop-web")));
    all
}

/// In the binary, so that it runs wherever that is put.
const RECOMMENDATIONS: &str = include_str!("../../../../examples/shop/recommendations.py");
