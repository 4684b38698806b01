//! Who comes in, what he is shown, and where his token is.

use std::fs;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::support::{binary, text};
use crate::walks::Shop;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_logs_in_reads_and_hears_why_he_may_not_do_the_rest() {
    let Some(mut browser) = Browser::start() else { return };
    let mut shop = Shop::open(&[]).await;
    let viewer = token(&shop, "reader", &["--role", "viewer"]);
    let editor = token(&shop, "bank", &["--role", "editor", "--namespace", "bank"]);
    // From now on nobody comes in without proof.
    shop.mesh.kill_control();
    shop.mesh.start_control_with(&["--admin-auth".to_owned(), "required".to_owned()]);
    browser.open(&shop.dashboard());
    browser.sees("wants to know who you are");
    browser.fills("Token", "not a token");
    browser.presses("Log in");
    browser.sees("That is not a token");
    browser.fills("Token", "orta_0000");
    browser.presses("Log in");
    browser.sees("was it copied whole?");
    browser.shot("login");
    browser.fills("Token", &viewer);
    browser.presses("Log in");
    browser.sees("shop/cart");
    browser.sees("token reader");

    // The token is in this tab, and nowhere else.
    let kept = browser.does("kept", json!({}));
    assert!(!kept["url"].as_str().unwrap().contains(&viewer) && kept["cookies"] == "", "{kept}");
    assert!(!kept["local"].to_string().contains(&viewer), "{kept}");
    assert_eq!(kept["session"]["outrigger.token"], viewer.as_str());
    assert!(!shop.mesh.control_log().contains(&viewer));

    // What he may not is there, disabled, and says why.
    browser.follows("shop/cart");
    browser.sees_in("Breakers", "This needs the role editor of shop; yours is viewer.");
    let open = json!({ "name": "Open the breaker over the service", "within": "Breakers" });
    assert_eq!(browser.does("disabled", open.clone()), json!(true));
    browser.follows("Audit");
    browser.sees("This needs the role operator; yours is viewer.");
    browser.follows("Certificates");
    browser.sees("This needs the role operator; yours is viewer.");
    browser.presses("Log out");
    browser.sees("wants to know who you are");
    let kept = browser.does("kept", json!({}));
    assert_eq!(kept["session"], json!({}), "{kept}");

    // An editor of another namespace is shown his own alone.
    browser.fills("Token", &editor);
    browser.presses("Log in");
    browser.sees("editor of bank");
    browser.does("miss", json!({ "text": "shop/cart" }));
    browser.did_nothing_amiss();
}

/// Somebody else's page, and what the API itself would refuse him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_tells_where_the_dashboard_is_and_how_one_comes_in() {
    let shop = Shop::open(&[]).await;
    let out = shop.mesh.cli(&["dashboard"]);
    let told = text(&out);
    assert!(out.status.success() && told.contains(&shop.dashboard()), "{told}");
    assert!(told.contains("comes in without a token"), "{told}");
    let out = shop.mesh.cli(&["dashboard", "-o", "json"]);
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(told["url"], shop.dashboard());
    // And it is there.
    let page = outrigger_testkit::Client::h1(shop.mesh.admin)
        .await
        .get(&shop.mesh.admin.to_string(), "/dashboard/")
        .await
        .unwrap();
    assert!(page.text().contains("/dashboard/app.js"), "{}", page.text());
}

fn token(shop: &Shop, name: &str, more: &[&str]) -> String {
    let file = shop.mesh.path(&format!("{name}.token"));
    let to = file.to_str().unwrap();
    let args = [&["token", "create", name, "--to", to], more].concat();
    let out = std::process::Command::new(binary("outrigger"))
        .args(args)
        .env("OUTRIGGER_ADMIN", format!("http://{}", shop.mesh.admin))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", text(&out));
    fs::read_to_string(file).unwrap().trim().to_owned()
}
