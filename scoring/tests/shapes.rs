//! Ordinary work is never refused, also by a deployment that sees every domain for the first time.

mod session;

use session::{A, AAAA, BASE32, BASE36, HEX, HTTPS, Random, Session, TXT};
use staunch_scoring::Band;

/// Asks names in order, each with A, AAAA and HTTPS; fails on the first that is not answered.
fn answered(names: &[String]) {
    for first_seen in [None, Some(0.0)] {
        let mut session = Session::new();
        session.first_seen_days = first_seen;
        for name in names {
            for qtype in [A, AAAA, HTTPS] {
                let got = session.ask(name, qtype);
                // A repeat that is held is answered from what is at hand.
                assert!(got.band <= Band::Hold, "{name} (first seen {first_seen:?}): {got:?}");
            }
        }
        println!("{} names, {} bits charged", names.len(), session.state.spent_session());
    }
}

#[test]
fn a_page_with_forty_hosts() {
    let hosts = ["www", "cdn", "static", "api", "img", "fonts", "", "media", "assets", "m", "login", "consent"];
    let domains = [
        "example.com",
        "example.org",
        "example.net",
        "wide-news.example",
        "adserver.example",
        "metrics.example",
        "shopfront.example",
        "weather-maps.example",
        "videoplayer.example",
        "fontlibrary.example",
        "tagmanager.example",
        "socialbutton.example",
        "commentbox.example",
        "searchbox.example",
        "imagehost.example",
        "paymentgate.example",
        "chatwidget.example",
        "abtesting.example",
        "crashreports.example",
        "cookieconsent.example",
        "mapsandroutes.example",
        "currency.example",
        "podcasts.example",
        "newsletter.example",
        "recommend.example",
    ];
    let names: Vec<String> = (0..40)
        .map(|i| format!("{}.{}", hosts[i % hosts.len()], domains[i % domains.len()]).trim_start_matches('.').into())
        .collect();
    answered(&names);
}

#[test]
fn eight_distributions_of_a_content_network() {
    // Many more at once are for the policy pack, which lists the network with a budget of its own.
    let mut random = Random(40);
    let names: Vec<String> = (0..8).map(|_| format!("d{}.cloudfront.net", random.text(BASE36, 13))).collect();
    answered(&names);
}

#[test]
fn ten_buckets_as_virtual_hosts() {
    let mut random = Random(10);
    for platform in ["s3.amazonaws.com", "s3.eu-west-1.amazonaws.com"] {
        let names: Vec<String> =
            (0..10).map(|_| format!("my-bucket-prod-logs-{}.{platform}", random.text(HEX, 12))).collect();
        answered(&names);
    }
}

#[test]
fn installs_and_checkouts() {
    let names = [
        "index.packages.example",
        "files.packages.example",
        "registry.modules.example",
        "static.modules.example",
        "deb.distribution.example",
        "security.distribution.example",
        "cdn-fastly.deb.distribution.example",
        "mirror.eu-west-1.distribution.example",
        "git.forge.example",
        "codeload.forge.example",
        "objects.forge.example",
        "raw.forgeusercontent.example",
        "lfs.forge.example",
        "proxy.golang.example",
        "sum.golang.example",
        "static.crates.example",
        "index.crates.example",
        "auth.containers.example",
        "production.cloudflare.containers.example",
        "blob-us-east-1.containers.example",
    ];
    answered(&names.map(String::from));
}

#[test]
fn hosts_of_one_large_service() {
    let names: Vec<String> = [
        "www",
        "api",
        "cdn",
        "static",
        "img1",
        "img2",
        "img3",
        "assets-cdn",
        "login",
        "accounts",
        "mail",
        "docs",
        "drive",
        "calendar",
        "status",
        "help",
        "support",
        "blog",
        "play",
        "store",
        "maps",
        "news",
        "photos",
        "translate",
        "ogs",
        "apis",
        "ssl",
        "clients1",
        "clients2",
        "clients6",
        "fonts",
        "safebrowsing",
        "update",
        "tools",
        "dl",
        "redirector",
        "people-pa.clients6",
        "suggestqueries",
        "encrypted-tbn0",
        "lh3",
    ]
    .iter()
    .map(|host| format!("{host}.bigservice.example"))
    .collect();
    answered(&names);
}

#[test]
fn one_verification_label_of_52_characters() {
    let mut random = Random(52);
    for (registered, first_seen) in [(None, None), (None, Some(0.0)), (Some(4_000.0), Some(0.0))] {
        let mut session = Session::new();
        session.types = 6;
        (session.registered_days, session.first_seen_days) = (registered, first_seen);
        let name = format!("{}.mx-verification.provider.example", random.text(BASE32, 52));
        for qtype in [TXT, A, AAAA] {
            let got = session.ask(&name, qtype);
            assert!(got.band <= Band::Watch, "{got:?}");
        }
    }
}

#[test]
fn polling_one_host_for_twelve_hours() {
    let mut session = Session::new();
    session.types = 3;
    for minute in 0..12 * 60 {
        session.now = minute * 60_000;
        let got = session.ask("api.telemetry.example", A);
        // Held after a while: answered at once, and asked again on the resolver's clock.
        assert!(got.band <= Band::Hold, "minute {minute}: {got:?}");
    }
}
