//! What users of the shop do and what they must see: each visit, and whether its answer is whole.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;

use crate::failure::Failure;
use crate::http::{Ask, ask};

/// What the shop sells, and what a whole answer holds.
#[derive(Clone, Debug)]
pub(super) struct Shop {
    items: Vec<String>,
    /// Whether recommendations are part of the demo: without Python they are not.
    recommendations: bool,
}

/// One step of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    Price(String),
    Item(String),
    Cart(String),
    AddToCart { user: String, item: String },
}

/// A part of an answer: which version of which service made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) service: &'static str,
    pub(super) version: String,
}

impl Shop {
    /// As the shop's front page lists it.
    pub(super) fn of_front_page(html: &str, recommendations: bool) -> Self {
        let mut items: Vec<String> = html
            .split("\"/items/")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .map(str::to_owned)
            .collect();
        items.dedup();
        Self { items, recommendations }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Waits until an instance of `web` answers every kind of visit whole.
    pub(super) async fn wait_open(&self, web: SocketAddr, within: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        for turn in 0..10 {
            loop {
                let visit = self.visit(turn);
                let (method, path, body) = visit.parts();
                let asked = Ask { method, body: body.map(String::into_bytes), ..Ask::get(&path) };
                let why = match ask(web, asked).await {
                    Ok(answer) => match self.read(&visit, answer.status.as_u16(), &answer.body) {
                        Ok(_) => break,
                        Err(why) => why,
                    },
                    Err(why) => why.to_string(),
                };
                if began.elapsed() > within {
                    return Err(Failure::failed(format!("the shop does not open: {why}")));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// What the user with this number does. Of ten steps, seven ask a price.
    pub(super) fn visit(&self, turn: usize) -> Visit {
        let item = self.items[turn / 10 % self.items.len().max(1)].clone();
        let user = format!("user-{}", turn / 10 % USERS);
        match turn % 10 {
            3 => Visit::AddToCart { user, item },
            5 => Visit::Cart(user),
            7 => Visit::Item(item),
            _ => Visit::Price(item),
        }
    }

    /// Reads an answer: who made its parts, or why it is not what a user should see.
    pub(super) fn read(&self, visit: &Visit, status: u16, body: &[u8]) -> Result<Vec<Made>, String> {
        // A full cart is what the shop should say to one who puts more and more into it.
        if status == 409 && matches!(visit, Visit::AddToCart { .. }) {
            return Ok(Vec::new());
        }
        if status != 200 {
            let said: String = String::from_utf8_lossy(body).chars().take(160).collect();
            return Err(format!("{} answered {status}: {}", visit.name(), said.trim()));
        }
        let page: Value = serde_json::from_slice(body).map_err(|_| format!("{} is no JSON", visit.name()))?;
        let made = |part: &Value| {
            let version =
                part["version"].as_str().ok_or_else(|| format!("{} lacks a price", visit.name()))?;
            Ok(Made { service: "prices", version: version.to_owned() })
        };
        match visit {
            Visit::Price(_) => Ok(vec![made(&page)?]),
            Visit::Cart(_) => {
                let lines = page["lines"].as_array().ok_or("the cart lacks its lines")?;
                lines.iter().map(made).collect()
            }
            Visit::Item(_) => {
                self.whole(&page)?;
                let recommended = page["recommendations"].as_array().map(Vec::as_slice).unwrap_or_default();
                std::iter::once(&page["price"]).chain(recommended).map(made).collect()
            }
            Visit::AddToCart { .. } => match page["pieces"].as_u64() {
                Some(_) => Ok(Vec::new()),
                None => Err("the cart lacks its pieces".into()),
            },
        }
    }

    /// The shop shows an item without its recommendations; here that is a failure like any other.
    fn whole(&self, page: &Value) -> Result<(), String> {
        let asked: &[&str] = &["prices", "reviews", "recommendations"];
        let asked = if self.recommendations { asked } else { &asked[..2] };
        for service in asked {
            let dependency = &page["dependencies"][service];
            if dependency["status"] != "ok" {
                let why = dependency["reason"].as_str().unwrap_or("no answer");
                return Err(format!("the item's page lacks {service}: {why}"));
            }
        }
        Ok(())
    }
}

impl Visit {
    /// The request of it.
    pub(super) fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let (method, path, body) = self.parts();
        let mut request = Request::builder().method(method).uri(path).header(HOST, "shop.example");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(Bytes::from(body.unwrap_or_default()))).map_err(|e| e.to_string())
    }

    fn parts(&self) -> (Method, String, Option<String>) {
        match self {
            Self::Price(item) => (Method::GET, format!("/price/{item}"), None),
            Self::Item(item) => (Method::GET, format!("/items/{item}"), None),
            Self::Cart(user) => (Method::GET, format!("/cart/{user}"), None),
            Self::AddToCart { user, item } => {
                let body = serde_json::json!({ "id": item, "quantity": 1 }).to_string();
                (Method::POST, format!("/cart/{user}/items"), Some(body))
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Price(_) => "the price",
            Self::Item(_) => "the item's page",
            Self::Cart(_) => "the cart",
            Self::AddToCart { .. } => "the addition to the cart",
        }
    }
}

/// Few enough for the shop to keep all their carts, many enough for no cart to get full.
const USERS: usize = 400;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shop() -> Shop {
        let html =
            r#"<li><a href="/items/oar">Oar</a> <a href="/price/oar">price</a><li><a href="/items/sail">"#;
        Shop::of_front_page(html, true)
    }

    fn prices(version: &str) -> Made {
        Made { service: "prices", version: version.into() }
    }

    #[test]
    fn the_front_page_tells_what_there_is() {
        assert_eq!(shop().items, ["oar", "sail"]);
    }

    #[test]
    fn users_mostly_ask_prices_and_sometimes_everything_else() {
        let visits: Vec<_> = (0..10).map(|turn| shop().visit(turn)).collect();
        assert_eq!(visits.iter().filter(|v| matches!(v, Visit::Price(_))).count(), 7);
        assert!(visits.contains(&Visit::AddToCart { user: "user-0".into(), item: "oar".into() }));
        assert!(visits.contains(&Visit::Cart("user-0".into())));
    }

    #[test]
    fn every_part_tells_the_version_that_made_it() {
        let read = |visit: Visit, page: Value| shop().read(&visit, 200, page.to_string().as_bytes());
        assert_eq!(read(Visit::Price("oar".into()), json!({"version": "v2"})), Ok(vec![prices("v2")]));
        let cart = json!({"lines": [{"version": "v1"}, {"version": "v2"}]});
        assert_eq!(read(Visit::Cart("u".into()), cart), Ok(vec![prices("v1"), prices("v2")]));
    }

    #[test]
    fn an_answer_that_is_not_whole_is_a_failure() {
        let item = Visit::Item("oar".into());
        let page = |recommendations: Value| {
            json!({"price": {"version": "v1"}, "recommendations": [{"version": "v2"}], "dependencies": {"prices": {"status": "ok"},
                "reviews": {"status": "ok"}, "recommendations": recommendations}})
            .to_string()
        };
        let lacking = page(json!({"status": "failed", "reason": "answered 503"}));
        let told = shop().read(&item, 200, lacking.as_bytes()).unwrap_err();
        assert_eq!(told, "the item's page lacks recommendations: answered 503");
        let whole = page(json!({"status": "ok"}));
        assert_eq!(shop().read(&item, 200, whole.as_bytes()), Ok(vec![prices("v1"), prices("v2")]));
        assert!(shop().read(&item, 503, b"no_endpoint").unwrap_err().contains("503: no_endpoint"));
    }
}
