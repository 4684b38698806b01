//! `GET /items/{id}`: three services are asked at once. Without a price or reviews there is no
//! answer; recommendations are a bonus and may be missing.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};

use super::{Shop, known};
use crate::call::{CallError, Service};
use crate::refusal::Refusal;
use crate::reviews::Opinion;
use crate::trace::TraceContext;

/// Joins what the others say about an item.
pub(super) async fn joined(
    State(shop): State<Shop>,
    Path(id): Path<String>,
    trace: TraceContext,
) -> Result<Json<Value>, Refusal> {
    let item = known(&id)?;
    let path = format!("/recommendations/{}", item.id);
    let (price, opinion, recommended) = tokio::join!(
        shop.price(item, &trace),
        shop.reviews.read(item, &trace),
        shop.outbound.get::<Value>(Service::Recommendations, &path, &trace),
    );

    let mut dependencies = Map::new();
    note(&mut dependencies, Service::Prices, &price);
    note(&mut dependencies, Service::Reviews, &opinion);
    note(&mut dependencies, Service::Recommendations, &recommended);
    let fatal = |error: CallError| Refusal::from(error).with("dependencies", dependencies.clone().into());

    let price = price.map_err(fatal)?;
    let opinion = opinion.map_err(fatal)?;
    let recommended = recommended.map_or(Value::Null, |mut answer| answer["recommendations"].take());
    Ok(Json(json!({
        "id": item.id,
        "name": item.name,
        "description": item.description,
        "price": { "price": price.price, "currency": price.currency, "version": price.version },
        "reviews": said(opinion),
        "recommendations": recommended,
        "dependencies": dependencies,
    })))
}

fn note<T>(dependencies: &mut Map<String, Value>, service: Service, answer: &Result<T, CallError>) {
    let status = match answer {
        Ok(_) => json!({ "status": "ok" }),
        Err(error) => json!({ "status": "failed", "reason": error.fault.to_string() }),
    };
    dependencies.insert(service.name().to_owned(), status);
}

fn said(opinion: Opinion) -> Value {
    let list: Vec<_> = opinion
        .reviews
        .into_iter()
        .map(|review| json!({ "author": review.author, "stars": review.stars, "text": review.text }))
        .collect();
    json!({ "count": opinion.summary.count, "average": opinion.summary.average_stars, "list": list })
}
