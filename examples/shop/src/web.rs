//! The service `web`, which people see: it asks the others and joins what they say. What it can
//! check itself (items, users, bodies) it refuses itself, so an error of another service is never
//! the user's.

mod item;
mod page;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;

use crate::call::{CallError, Fault, Outbound, Service};
use crate::cart::{AddItem, Added, Addition, Total, User};
use crate::catalogue::{self, Item};
use crate::prices::Price;
use crate::refusal::Refusal;
use crate::reviews::Reader;
use crate::trace::TraceContext;

/// The page, carts, items, prices and `GET /healthz`.
pub fn router(outbound: Outbound) -> Result<Router, http::Error> {
    let reviews = Reader::new(outbound.channel(Service::Reviews)?);
    Ok(Router::new()
        .route("/", get(async || Html(page::of_items(&catalogue::ITEMS))))
        .route("/cart/{user}", get(cart))
        .route("/cart/{user}/items", post(add_to_cart))
        .route("/items/{id}", get(item::joined))
        .route("/price/{id}", get(price))
        .with_state(Shop { outbound, reviews })
        .route("/healthz", get(async || "ok\n")))
}

#[derive(Clone)]
struct Shop {
    outbound: Outbound,
    reviews: Reader,
}

async fn cart(
    State(shop): State<Shop>,
    Path(user): Path<String>,
    trace: TraceContext,
) -> Result<Json<Total>, Refusal> {
    let user = User::try_from(user)?;
    let path = format!("/cart/{}", user.as_str());
    Ok(Json(shop.outbound.get(Service::Cart, &path, &trace).await?))
}

async fn add_to_cart(
    State(shop): State<Shop>,
    Path(user): Path<String>,
    trace: TraceContext,
    body: Result<Json<AddItem>, JsonRejection>,
) -> Result<Json<Added>, Refusal> {
    let user = User::try_from(user)?;
    let addition = AddItem::from(Addition::try_from(body?.0)?);
    let path = format!("/cart/{}/items", user.as_str());
    let added = shop.outbound.post(Service::Cart, &path, &trace, &addition).await;
    added.map(Json).map_err(|error| match error {
        // A full cart is the one refusal that only `cart` can know of.
        CallError { fault: Fault::Status { status: StatusCode::CONFLICT, .. }, .. } => {
            Refusal::new(StatusCode::CONFLICT, "the cart is full")
        }
        error => error.into(),
    })
}

async fn price(
    State(shop): State<Shop>,
    Path(id): Path<String>,
    trace: TraceContext,
) -> Result<Json<Price>, Refusal> {
    Ok(Json(shop.price(known(&id)?, &trace).await?))
}

impl Shop {
    async fn price(&self, item: &Item, trace: &TraceContext) -> Result<Price, CallError> {
        self.outbound.get(Service::Prices, &format!("/price/{}", item.id), trace).await
    }
}

fn known(id: &str) -> Result<&'static Item, Refusal> {
    catalogue::find(id).ok_or_else(|| Refusal::unknown_item(id))
}
