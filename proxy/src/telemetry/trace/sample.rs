//! A share of all that begins.

use std::fmt;
use std::str::FromStr;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use outrigger_mesh::{RouteName, TraceShare};

/// A share, from nothing to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(Option<u64>);

/// How much of what begins a trace here is kept.
#[derive(Clone, Debug)]
pub struct Shares {
    /// Of what takes none of the routes below.
    pub others: Share,
    /// Of what takes one of these: `namespace/route`, or one rule of it, `namespace/route/0`.
    pub routes: HashMap<Box<str>, Share>,
}

impl Shares {
    /// The largest of them: what is not of this share is kept on no route.
    pub fn most(&self) -> Share {
        let all = self.routes.values().chain([&self.others]).copied();
        all.reduce(|one, other| if one.is_larger(other) { one } else { other }).unwrap_or(self.others)
    }

    /// That of a route: of the rule, else of the route it belongs to, else of all others.
    pub fn of(&self, route: Option<&RouteName>) -> Share {
        let Some(name) = route.map(RouteName::as_str).filter(|_| !self.routes.is_empty()) else {
            return self.others;
        };
        let whole = || name.rsplit_once('/').and_then(|(route, _rule)| self.routes.get(route));
        self.routes.get(name).or_else(whole).copied().unwrap_or(self.others)
    }
}

impl From<Share> for Shares {
    fn from(others: Share) -> Self {
        Self { others, routes: HashMap::new() }
    }
}

/// The share of one route as it is written: `shop/checkout=100%`.
pub fn of_route(text: &str) -> Result<(Box<str>, Share), String> {
    let hint = "write NAMESPACE/ROUTE=PERCENT or NAMESPACE/ROUTE/RULE=PERCENT, like shop/checkout=100%";
    let (route, share) = text.split_once('=').ok_or_else(|| format!("{text:?} names no share; {hint}"))?;
    let parts: Vec<&str> = route.split('/').collect();
    let named = matches!(parts.len(), 2 | 3) && parts.iter().all(|part| !part.is_empty());
    if !named || parts.get(2).is_some_and(|rule| rule.parse::<u16>().is_err()) {
        return Err(format!("{route:?} names no route; {hint}"));
    }
    Ok((route.into(), share.parse().map_err(|why: NotAShare| why.to_string())?))
}

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(Some(0));
    /// All.
    pub const ALL: Self = Self(None);

    /// Of a ratio from 0 to 1; `None` for what is no such ratio.
    pub fn of(ratio: f64) -> Option<Self> {
        if ratio.total_cmp(&1.0).is_eq() {
            return Some(Self::ALL);
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 1 it is in range"
        )]
        (0.0..1.0).contains(&ratio).then_some(Self(Some((ratio * TWO_TO_64) as u64)))
    }

    /// Whether the next is of it.
    pub fn draws(self) -> bool {
        self.has(fastrand::u64(..))
    }

    /// Whether what drew that number is of it. What is of a share is of each larger one.
    pub fn has(self, drawn: u64) -> bool {
        self.0.is_none_or(|below| drawn < below)
    }

    fn is_larger(self, than: Self) -> bool {
        match (self.0, than.0) {
            (None, Some(_)) => true,
            (Some(one), Some(other)) => one > other,
            (_, None) => false,
        }
    }
}

impl From<TraceShare> for Share {
    fn from(share: TraceShare) -> Self {
        Self::of(share.ratio()).unwrap_or(Self::NONE)
    }
}

/// The largest of some shares, as each request reads it.
#[derive(Debug, Default)]
pub struct Largest(AtomicU64);

impl Largest {
    /// From now on it is this one.
    pub fn set(&self, share: Share) {
        self.0.store(share.0.unwrap_or(u64::MAX), Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> Share {
        let below = self.0.load(Relaxed);
        // No ratio below 1 comes to so much.
        if below == u64::MAX { Share::ALL } else { Share(Some(below)) }
    }
}

impl FromStr for Share {
    type Err = NotAShare;

    fn from_str(text: &str) -> Result<Self, NotAShare> {
        let percent = text.trim().strip_suffix('%').ok_or_else(|| NotAShare(text.into()))?;
        let percent: f64 = percent.trim().parse().map_err(|_| NotAShare(text.into()))?;
        Self::of(percent / 100.0).ok_or_else(|| NotAShare(text.into()))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[allow(clippy::cast_precision_loss, reason = "it came from a float")]
        let ratio = self.0.map_or(1.0, |below| below as f64 / TWO_TO_64);
        write!(f, "{}%", (ratio * 1e8).round() / 1e6)
    }
}

/// What is no share.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no share: write a percentage from 0% to 100%, like 1% or 0.5%")]
pub struct NotAShare(String);

const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_its_own_share_and_a_rule_of_it_another() {
        let of = |text| of_route(text).unwrap();
        let routes = HashMap::from([of("shop/pay=100%"), of("shop/pay/1=0%"), of("shop/list=2%")]);
        let shares = Shares { others: "1%".parse().unwrap(), routes };
        assert_eq!(shares.most(), Share::ALL);
        for (route, share) in [
            ("shop/pay/0", "100%"),
            ("shop/pay/1", "0%"),
            ("shop/list/7", "2%"),
            ("shop/other/0", "1%"),
            ("edge/pay/0", "1%"),
        ] {
            assert_eq!(shares.of(Some(&route.parse().unwrap())).to_string(), share, "{route}");
        }
        assert_eq!((shares.of(None), Shares::from(Share::NONE).most()), (shares.others, Share::NONE));
        for wrong in ["shop/pay", "pay=1%", "shop/=1%", "shop/pay/x=1%", "a/b/c/d=1%", "shop/pay=2"] {
            assert!(of_route(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_pushed_is_a_share_and_the_largest_is_kept_whole() {
        for (pushed, share) in [(0, "0%"), (500_000, "50%"), (10_000, "1%"), (1_000_000, "100%")] {
            let share: Share = share.parse().unwrap();
            assert_eq!(Share::from(TraceShare::of_millionths(pushed).unwrap()), share);
            let largest = Largest::default();
            assert_eq!(largest.get(), Share::NONE);
            largest.set(share);
            assert_eq!(largest.get(), share);
        }
    }

    #[test]
    fn shares_are_percentages() {
        for (text, told) in
            [("1%", "1%"), ("0%", "0%"), ("100%", "100%"), (" 0.5 %", "0.5%"), ("33.3%", "33.3%")]
        {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), told);
        }
        for text in ["", "1", "%", "101%", "-1%", "NaN%", "inf%", "1e9%", "one%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        assert!(Share::ALL.draws() && !Share::NONE.draws());
    }
}
