//! The service `cart`: carts in memory, gone with the process, bounded in number and size.

mod store;

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::call::{CallError, Outbound, Service};
use crate::catalogue::{self, CURRENCY, Cents, Item};
use crate::prices::{Price, Version};
use crate::refusal::Refusal;
use crate::trace::TraceContext;
use store::Carts;

pub use store::{Full, MAX_CARTS, MAX_PIECES};

/// A user's name: 1 to 64 letters, digits, `-` or `_`, so that it can stand in a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct User(String);

/// The request to put something into a cart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddItem {
    /// The item.
    pub id: String,
    /// How many of it.
    #[serde(default = "one")]
    pub quantity: u32,
}

/// An addition that was checked: the item exists and the quantity fits a cart.
#[derive(Clone, Copy, Debug)]
pub struct Addition {
    item: &'static Item,
    quantity: u32,
}

/// What a cart holds, after something was put into it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Added {
    /// Whose cart.
    pub user: String,
    /// How many pieces it holds.
    pub pieces: u32,
}

/// A cart with prices.
#[derive(Debug, Serialize, Deserialize)]
pub struct Total {
    /// Whose cart.
    pub user: String,
    /// What it holds.
    pub lines: Vec<Line>,
    /// How many pieces that is.
    pub pieces: u32,
    /// What it all costs.
    pub total: Cents,
    /// In this currency.
    pub currency: String,
}

/// One kind of item in a cart.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// The item.
    pub id: String,
    /// How many of it.
    pub quantity: u32,
    /// What one costs.
    pub price: Cents,
    /// The version of `prices` that said so.
    pub version: Version,
}

/// `GET /cart/{user}`, `POST /cart/{user}/items` and `GET /healthz`.
pub fn router(outbound: Outbound) -> Router {
    Router::new()
        .route("/cart/{user}", get(total))
        .route("/cart/{user}/items", post(add))
        .with_state(Shop { outbound, carts: Arc::default() })
        .route("/healthz", get(async || "ok\n"))
}

#[derive(Clone)]
struct Shop {
    outbound: Outbound,
    carts: Arc<Carts>,
}

async fn add(
    State(shop): State<Shop>,
    Path(user): Path<String>,
    body: Result<Json<AddItem>, JsonRejection>,
) -> Result<Json<Added>, Refusal> {
    let user = User::try_from(user)?;
    let addition = Addition::try_from(body?.0)?;
    let pieces = shop.carts.add(&user, addition)?;
    Ok(Json(Added { user: user.0, pieces }))
}

async fn total(
    State(shop): State<Shop>,
    Path(user): Path<String>,
    trace: TraceContext,
) -> Result<Json<Total>, Refusal> {
    let user = User::try_from(user)?;
    let calls: Vec<_> =
        shop.carts.of(&user).into_iter().map(|(item, quantity)| shop.line(item, quantity, &trace)).collect();
    // `buffered` keeps the order, and a failure ends the calls that are still under way.
    let lines: Vec<_> = stream::iter(calls).buffered(PRICES_AT_ONCE).try_collect().await?;
    Ok(Json(Total {
        user: user.0,
        pieces: lines.iter().map(|line| line.quantity).sum(),
        total: Cents(lines.iter().map(|line| line.price.0.saturating_mul(line.quantity.into())).sum()),
        lines,
        currency: CURRENCY.to_owned(),
    }))
}

impl Shop {
    async fn line(
        &self,
        item: &'static Item,
        quantity: u32,
        trace: &TraceContext,
    ) -> Result<Line, CallError> {
        let path = format!("/price/{}", item.id);
        let Price { id, price, version, .. } = self.outbound.get(Service::Prices, &path, trace).await?;
        Ok(Line { id, quantity, price, version })
    }
}

impl User {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for User {
    type Error = Refusal;

    fn try_from(name: String) -> Result<Self, Refusal> {
        let fits = (1..=64).contains(&name.len());
        if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Ok(Self(name));
        }
        let error = "a user's name is 1 to 64 letters, digits, '-' or '_'";
        Err(Refusal::new(StatusCode::BAD_REQUEST, error))
    }
}

impl TryFrom<AddItem> for Addition {
    type Error = Refusal;

    fn try_from(asked: AddItem) -> Result<Self, Refusal> {
        let item = catalogue::find(&asked.id).ok_or_else(|| Refusal::unknown_item(&asked.id))?;
        if !(1..=MAX_PIECES).contains(&asked.quantity) {
            let error = format!("the quantity must be from 1 to {MAX_PIECES}");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, error));
        }
        Ok(Self { item, quantity: asked.quantity })
    }
}

impl From<Addition> for AddItem {
    fn from(addition: Addition) -> Self {
        Self { id: addition.item.id.to_owned(), quantity: addition.quantity }
    }
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        Self::new(StatusCode::CONFLICT, full.to_string())
    }
}

fn one() -> u32 {
    1
}

/// So many prices of one cart are asked for at once.
const PRICES_AT_ONCE: usize = 4;
