//! Every page, light and dark and on a phone: opened, looked at by axe-core, and kept as a picture.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::walks::{Rude, Shop};

/// Where each page is, and what is to be seen when it is there.
const PAGES: [(&str, &str, &str); 12] = [
    ("services", "#/services", "checkout"),
    ("service", "#/services/shop/cart", "Golden signals"),
    ("topology", "#/topology", "shop/cart"),
    ("rollouts", "#/rollouts", "v1 → v2"),
    ("rollout-waiting", "#/rollouts/shop/cart", "What happened"),
    ("tap", "#/tap?to=shop/cart", "Bodies and secrets are never shown"),
    ("explain", "#/explain?host=cart.shop", "Nothing is sent to the service"),
    ("proxies", "#/proxies", "in step"),
    ("certificates", "#/certificates", "valid"),
    ("changes", "#/changes", "created services/shop/cart"),
    ("audit-all", "#/audit", "create"),
    ("not-here", "#/no/such/page", "There is no such page"),
];

/// Tables that are wider than what holds them, where that takes no focus.
const STUCK: &str = "[...document.querySelectorAll('table')].filter((table) => { const holds = table.parentElement; \
    return holds.scrollWidth > holds.clientWidth && !holds.closest('[tabindex=\"0\"]'); }).length";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_can_be_used_light_and_dark_and_on_a_phone() {
    let Some(mut browser) = Browser::start() else { return };
    let shop = Shop::open(&[]).await;
    let words = "rollout start cart -n shop --from v1 --to v2 --steps 20,100";
    assert!(shop.mesh.cli(&words.split(' ').collect::<Vec<_>>()).status.success());
    let rude = Rude::start(&shop);
    let proxy = shop.mesh.node_of("cart").await;
    let mut wrong = Vec::new();
    for (theme, width) in [("light", 1280), ("dark", 1280), ("light", 390)] {
        browser.does("open", json!({ "url": shop.dashboard(), "theme": theme, "width": width }));
        browser.sees("shop/cart");
        let more = ("proxy", &*format!("#/proxies/{proxy}"), "What it was sent");
        for (name, at, seen) in PAGES.into_iter().chain([more]) {
            browser.go(at);
            browser.sees(seen);
            browser.shot(&format!("{name}-{theme}-{width}"));
            // The page never scrolls sideways (`axe` looks at that too): wide tables do, by keyboard as well.
            let stuck = browser.does("evaluate", json!({ "code": STUCK }));
            if stuck != json!(0) {
                wrong.push(format!(
                    "{name}, {theme}, {width} wide: {stuck} tables can not be scrolled by keyboard"
                ));
            }
            for found in browser.does("axe", json!({})).as_array().unwrap() {
                wrong.push(format!("{name}, {theme}, {width} wide: {}", found.as_str().unwrap()));
            }
        }
        browser.did_nothing_amiss();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    rude.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_used_by_keyboard_charts_are_tables_too_and_a_theme_that_was_chosen_stays() {
    let Some(mut browser) = Browser::start() else { return };
    let shop = Shop::open(&[]).await;
    let rude = Rude::start(&shop);
    browser.open(&shop.dashboard());
    browser.sees("shop/cart");
    // The first stop leads past the menu.
    browser.does("press", json!({ "keys": ["Tab"] }));
    assert_eq!(browser.does("focused", json!({})), "To the content");
    browser.does("press", json!({ "keys": ["Enter"] }));
    browser.does("press", json!({ "keys": ["Tab"] }));
    browser.go("#/services/shop/cart");
    browser.sees("Golden signals");
    browser.does("see", json!({ "text": "Requests/s", "within": "Golden signals" }));
    browser.presses("Table of Requests/s");
    browser.sees_in("Golden signals", "Chart");
    browser.sees_in("Golden signals", "Time");
    // An explanation, as the API gives it.
    browser.go("#/explain?host=cart.shop");
    browser.fills("Path", "/items/7");
    browser.fills("Caller", "shop/web");
    browser.does("press", json!({ "keys": ["Enter"] }));
    browser.sees_in("What becomes of it", "let through");
    browser.sees_in("What becomes of it", "/items/7");
    browser.fills("Host", "no.such.place");
    browser.does("press", json!({ "keys": ["Enter"] }));
    browser.sees_in("What becomes of it", "unknown_service");
    // What is wrong with a question is told with the API's words.
    browser.fills("Host", "not a host");
    browser.does("press", json!({ "keys": ["Enter"] }));
    browser.sees("Bad Request");
    browser.does("choose", json!({ "label": "Theme", "value": "dark" }));
    let dark = json!({ "code": "getComputedStyle(document.body.parentElement).colorScheme" });
    assert_eq!(browser.does("evaluate", dark.clone()), "dark");
    browser.does("evaluate", json!({ "code": "location.reload()" }));
    browser.sees("Nothing is sent to the service");
    assert_eq!(browser.does("evaluate", dark), "dark");
    let kept: Value = browser.does("kept", json!({}));
    assert_eq!(kept["local"], json!({ "outrigger.theme": "dark" }), "nothing else stays");
    browser.did_nothing_amiss();
    rude.end().await;
}
