//! The service `prices`, in two versions that answer differently so that a canary can be seen.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::catalogue::{self, CURRENCY, Cents, Item};
use crate::refusal::Refusal;

/// What an item costs, and which version says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// The item.
    pub id: String,
    /// What it costs.
    pub price: Cents,
    /// In this currency.
    pub currency: String,
    /// The version of `prices` that answered.
    pub version: Version,
}

/// The versions of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// The list price.
    V1,
    /// A tenth off, rounded to five cents.
    V2,
}

/// `GET /price/{id}` and `GET /healthz`; every price is held back for `delay`.
pub fn router(version: Version, delay: Duration) -> Router {
    Router::new()
        .route("/price/{id}", get(price))
        .with_state((version, delay))
        .route("/healthz", get(async || "ok\n"))
}

impl Version {
    /// What this version asks for `item`.
    pub fn price(self, item: &Item) -> Cents {
        match self {
            Self::V1 => item.list_price,
            Self::V2 => Cents((item.list_price.0 * 9 / 10 + 2) / 5 * 5),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::V1, Self::V2].into_iter().find(|version| version.name() == text).ok_or(())
    }
}

async fn price(State((version, delay)): State<(Version, Duration)>, Path(id): Path<String>) -> Response {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let answer = match catalogue::find(&id) {
        Some(item) => Json(Price { id, price: version.price(item), currency: CURRENCY.to_owned(), version })
            .into_response(),
        None => Refusal::unknown_item(&id).into_response(),
    };
    ([(VERSION_HEADER, HeaderValue::from_static(version.name()))], answer).into_response()
}

/// Says which version answered, refusals included.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("x-shop-version");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::ITEMS;

    #[test]
    fn the_second_version_is_cheaper_and_ends_in_five_or_nought() {
        for item in &ITEMS {
            let (first, second) = (Version::V1.price(item), Version::V2.price(item));
            assert!(second < first, "{}", item.id);
            assert_eq!(second.0 % 5, 0, "{}", item.id);
        }
    }

    #[test]
    fn a_version_is_written_the_same_way_everywhere() {
        for version in [Version::V1, Version::V2] {
            assert_eq!(version.to_string().parse(), Ok(version));
            assert_eq!(serde_json::to_value(version).unwrap(), version.to_string());
        }
    }
}
