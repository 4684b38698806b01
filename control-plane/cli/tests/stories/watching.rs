//! What `outrigger rollout status --watch` draws, at a real terminal.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use crate::rollout::Shop;
use crate::support::{Load, binary};
use crate::terminal::Terminal;

/// Somebody watches at a terminal of this size.
fn watched(shop: &Shop, (columns, rows): (u16, u16), env: &[(&str, &str)]) -> Terminal {
    let mut command = Command::new(binary("outrigger"));
    command.args(["rollout", "status", "cart", "-n", "shop", "--watch"]);
    command.env("OUTRIGGER_ADMIN", format!("http://{}", shop.mesh.admin));
    Terminal::run(command, columns, rows, env)
}

/// How often the picture stands there.
fn pictures(text: &str) -> usize {
    text.matches("shop/cart: v1 to v2").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_is_drawn_over_itself_whatever_size_the_terminal_is_and_becomes() {
    let shop = Shop::open().await;
    shop.start("--steps 10,50,100 --hold 2s --min-success 50");
    let mut wide = watched(&shop, (100, 40), &[]);
    let mut small = watched(&shop, (40, 8), &[]);
    let mut plain = watched(&shop, (100, 40), &[("NO_COLOR", "1")]);
    let mut left = watched(&shop, (80, 24), &[]);
    let mut dumb = watched(&shop, (80, 24), &[("TERM", "dumb")]);
    for terminal in [&wide, &small, &plain, &left, &dumb] {
        terminal.until("Waiting");
    }
    let load = Load::start(shop.web.outbound, "cart", 4);
    let _new = shop.mesh.instance("cart", "v2").await;
    for terminal in [&wide, &small, &plain, &left, &dumb] {
        terminal.until("Holding");
    }
    // Nothing is wider or higher than there is room, so that it can be drawn over.
    assert!(small.text().lines().count() <= 9, "{}", small.text());
    wide.resize(50, 40);
    small.resize(100, 40);
    left.interrupt();
    assert_eq!(left.ended().signal(), Some(2), "{}", left.text());
    assert!(pictures(&left.text()) == 1 && left.text().ends_with('\n'), "{}", left.text());
    for terminal in [&mut wide, &mut small, &mut plain] {
        let status = terminal.ended();
        let text = terminal.text();
        assert!(status.success(), "{status}: {text}");
        assert_eq!(pictures(&text), 1, "{text}");
        assert!(text.contains("Done") && text.contains("candidate") && text.ends_with('\n'), "{text}");
    }
    assert!(wide.written().contains("\x1b[32m") && !plain.written().contains("\x1b[32m"));
    assert!(dumb.ended().success());
    assert!(!dumb.written().contains('\x1b') && dumb.text().contains("v1 to v2: Done, 100 % on v2"));
    load.end().await;
}
