//! Models from a hub on the loopback interface.

mod server;

use std::fs;
use std::path::Path;

use lim_model::{Download, Error, Hub, ModelDir};

use crate::goldens;
use server::{COMMIT, Server};

const NAME: &str = "org/tiny";

/// A server that holds a golden model and a tokenizer.
fn server(model: &str) -> Server {
    let server = Server::start(NAME);
    for entry in fs::read_dir(goldens::path("models").join(model)).unwrap() {
        let entry = entry.unwrap();
        let file = entry.file_name().into_string().unwrap();
        if file != "expected.json" {
            server.put(&file, &fs::read(entry.path()).unwrap());
        }
    }
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let content = fs::read(goldens::path("tokenizers/byte-level").join(file)).unwrap();
        server.put(file, &content);
    }
    server.put("pytorch_model.bin", b"never wanted");
    server
}

fn hub(server: &Server, cache: &Path) -> Hub {
    Hub { endpoint: server.endpoint(), cache: cache.into(), token: None, offline: false }
}

fn get(hub: &Hub) -> Result<ModelDir, Error> {
    hub.model(NAME, &mut |_| {})
}

fn said(hub: &Hub) -> String {
    get(hub).expect_err("the hub must refuse").to_string()
}

#[test]
fn a_fresh_download_is_whole_and_is_then_read_from_the_cache() {
    for model in ["qwen2-default", "llama-llama3-sharded"] {
        let (server, cache) = (server(model), tempfile::tempdir().unwrap());
        let mut seen: Vec<(String, u64, u64)> = Vec::new();
        let mut note = |d: Download<'_>| seen.push((d.file.into(), d.done, d.total));
        let dir = hub(&server, cache.path()).model(NAME, &mut note).unwrap();
        let config = dir.config().unwrap();
        dir.checkpoint().unwrap().weights(&config, None).unwrap();
        assert_eq!(dir.tokenizer().unwrap().encode("Hello").unwrap().len(), 1);

        let folder = cache.path().join("models--org--tiny");
        assert_eq!(dir.path().unwrap(), folder.join("snapshots").join(COMMIT));
        assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
        let link = fs::read_link(dir.path().unwrap().join("config.json")).unwrap();
        assert!(link.starts_with("../../blobs"), "{link:?}");
        assert!(!dir.path().unwrap().join("pytorch_model.bin").exists());
        for name in fs::read_dir(folder.join("blobs")).unwrap() {
            let name = name.unwrap().file_name().into_string().unwrap();
            assert!(!name.ends_with(".incomplete"), "{name}");
        }
        let (file, done, total) = seen.last().unwrap();
        assert!(file.ends_with(".safetensors") && done == total, "{file}: {done} of {total}");

        let requests = server.requests().len();
        let offline = Hub { offline: true, ..hub(&server, cache.path()) };
        assert_eq!(get(&offline).unwrap().path(), dir.path());
        let by_commit = offline.model(&format!("{NAME}@{COMMIT}"), &mut |_| {}).unwrap();
        assert_eq!(by_commit.path(), dir.path());
        let found = ModelDir::find(NAME, &hub(&server, cache.path()), &mut |_| {}).unwrap();
        assert_eq!(found.path(), dir.path());
        assert_eq!(server.requests().len(), requests, "a whole snapshot needs no server");
    }
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let (server, cache) = (server("qwen2-default"), tempfile::tempdir().unwrap());
    server.set(|s| s.cut = Some(("model.safetensors".into(), 10_000)));
    let dir = get(&hub(&server, cache.path())).unwrap();
    let content = fs::read(dir.path().unwrap().join("model.safetensors")).unwrap();
    assert_eq!(content, fs::read(goldens::path("models/qwen2-default/model.safetensors")).unwrap());
    let ranges: Vec<String> = server
        .requests()
        .iter()
        .filter(|r| r.path.contains("cdn"))
        .filter_map(|r| r.header("range"))
        .collect();
    assert_eq!(ranges, ["bytes=10000-"]);
}

#[test]
fn an_earlier_process_s_part_is_used_or_replaced() {
    let whole = fs::read(goldens::path("models/qwen2-default/model.safetensors")).unwrap();
    let too_long = vec![0; whole.len() + 1];
    for (part, ranges_work, resumed) in
        [(&whole[..777], true, true), (&whole[..777], false, false), (&too_long[..], true, false)]
    {
        let (server, cache) = (server("qwen2-default"), tempfile::tempdir().unwrap());
        server.set(|s| s.ranges = ranges_work);
        let blobs = cache.path().join("models--org--tiny/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let incomplete = blobs.join(format!("{}.incomplete", server::etag("model.safetensors")));
        fs::write(incomplete, part).unwrap();
        let dir = get(&hub(&server, cache.path())).unwrap();
        assert!(fs::read(dir.path().unwrap().join("model.safetensors")).unwrap() == whole);
        let cdn = server.requests().into_iter().rfind(|r| r.path.contains("cdn")).unwrap();
        let sent = server.sent(&cdn);
        assert_eq!(sent == whole.len() - 777, resumed, "{sent} bytes sent");
    }
}

#[test]
fn a_server_that_keeps_breaking_is_given_up_and_the_part_is_kept() {
    let (server, cache) = (server("qwen2-default"), tempfile::tempdir().unwrap());
    server.set(|s| s.broken = Some("config.json".into()));
    let said = said(&hub(&server, cache.path()));
    assert!(said.contains("config.json") && said.contains("HTTP 503") && said.contains("0 of"), "{said}");
    server.set(|s| s.broken = None);
    get(&hub(&server, cache.path())).unwrap();
}

#[test]
fn offline_without_a_copy_says_so() {
    let (server, cache) = (server("qwen2-default"), tempfile::tempdir().unwrap());
    let offline = Hub { offline: true, ..hub(&server, cache.path()) };
    let refusal = said(&offline);
    assert!(refusal.contains("HF_HUB_OFFLINE") && refusal.contains(NAME), "{refusal}");
    assert!(server.requests().is_empty());

    let dir = get(&hub(&server, cache.path())).unwrap();
    let remove = |file: &str| fs::remove_file(dir.path().unwrap().join(file)).unwrap();
    remove("tokenizer.json");
    assert!(get(&offline).is_ok(), "a model can be run on token ids");
    get(&hub(&server, cache.path())).unwrap().tokenizer().expect("brought where that is allowed");
    remove("model.safetensors");
    assert!(said(&offline).contains("not whole"));
}

#[test]
fn a_gated_model_needs_the_right_token() {
    let (server, cache) = (server("qwen2-default"), tempfile::tempdir().unwrap());
    server.set(|s| s.token = Some("right".into()));
    let with = |token: &str| Hub { token: Some(token.into()), ..hub(&server, cache.path()) };
    let refusal = said(&hub(&server, cache.path()));
    assert!(refusal.contains("HTTP 401") && refusal.contains("set HF_TOKEN"), "{refusal}");
    let refusal = said(&with("wrong"));
    assert!(
        refusal.contains("HTTP 401") && refusal.contains("the token in HF_TOKEN has no access"),
        "{refusal}"
    );
    assert!(!refusal.contains("wrong"), "a token is not printed: {refusal}");
    get(&with("right")).unwrap();
    let leaked = server
        .requests()
        .iter()
        .filter(|r| r.path.contains("cdn"))
        .any(|r| r.header("authorization").is_some());
    assert!(!leaked, "the token does not follow redirects");
}

#[test]
fn what_is_not_there_is_named() {
    let (server, cache) = (server("qwen2-default"), tempfile::tempdir().unwrap());
    let hub = hub(&server, cache.path());
    let refusal = hub.model("org/other", &mut |_| {}).unwrap_err().to_string();
    assert!(refusal.contains("org/other") && refusal.contains("HTTP 404"), "{refusal}");
    for name in ["../tiny", "org/../tiny", "/etc/passwd", "org/tiny@../x", "org/tiny/more"] {
        let before = server.requests().len();
        let refusal = hub.model(name, &mut |_| {}).unwrap_err().to_string();
        assert!(refusal.contains("neither a directory") || refusal.contains("revision"), "{refusal}");
        assert_eq!(server.requests().len(), before);
    }
    server.remove("model.safetensors");
    assert!(said(&hub).contains("no safetensors weights"));
    let nowhere = Hub { endpoint: "http://127.0.0.1:9".into(), ..hub };
    assert!(said(&nowhere).contains("http://127.0.0.1:9/api/models/org/tiny"));
}

#[test]
fn a_server_cannot_write_outside_the_cache() {
    let outside = tempfile::tempdir().unwrap();
    let cache = outside.path().join("deep/cache");
    let files_outside = || fs::read_dir(outside.path()).unwrap().count();

    let lying = server("qwen2-default");
    lying.set(|s| s.commit = "../../../evil".into());
    assert!(said(&hub(&lying, &cache)).contains("sha is"));

    let lying = server("qwen2-default");
    lying.set(|s| s.etag = Some("../../../evil".into()));
    assert!(said(&hub(&lying, &cache)).contains("no usable etag"));

    let lying = server("llama-llama3-sharded");
    lying.put("model.safetensors.index.json", br#"{"weight_map": {"model.norm.weight": "../../../evil"}}"#);
    assert!(said(&hub(&lying, &cache)).contains("not a plain file name"));
    assert!(files_outside() <= 1, "only the cache itself may be there");
}

#[test]
fn a_file_that_is_not_as_announced_is_refused() {
    let (server, cache) = (server("qwen2-default"), tempfile::tempdir().unwrap());
    server.set(|s| s.announce_less = 1);
    assert!(said(&hub(&server, cache.path())).contains("more than the announced"));
}
