//! A hub small enough for a test: descriptions, `resolve` with redirects, ranges, tokens, and faults on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The commit that `main` stands at.
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request that has come.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) path: String,
    headers: Vec<(String, String)>,
    number: usize,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone())
    }
}

/// What the server holds and how it behaves.
pub(super) struct State {
    files: BTreeMap<String, Vec<u8>>,
    pub(super) commit: String,
    /// The token that requests need.
    pub(super) token: Option<String>,
    /// Whether it answers ranges with 206.
    pub(super) ranges: bool,
    /// Close the connection after so many bytes of this file, once.
    pub(super) cut: Option<(String, usize)>,
    /// Answer requests for this file's content with 503.
    pub(super) broken: Option<String>,
    /// The etag of every file, instead of its own.
    pub(super) etag: Option<String>,
    /// Announce so many bytes less than a file has.
    pub(super) announce_less: usize,
    requests: Vec<Received>,
    sent: Vec<usize>,
}

pub(super) struct Server {
    name: &'static str,
    address: String,
    state: Arc<Mutex<State>>,
}

/// The etag of a file: of its name, as contents do not change here.
pub(super) fn etag(file: &str) -> String {
    file.bytes().map(|b| format!("{b:02x}")).collect()
}

impl Server {
    pub(super) fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = State {
            files: BTreeMap::new(),
            commit: COMMIT.into(),
            token: None,
            ranges: true,
            cut: None,
            broken: None,
            etag: None,
            announce_less: 0,
            requests: Vec::new(),
            sent: Vec::new(),
        };
        let server = Server { name, address, state: Arc::new(Mutex::new(state)) };
        let (state, address) = (server.state.clone(), server.address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), name, &address, &state);
            }
        });
        server
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn put(&self, file: &str, content: &[u8]) {
        assert!(self.name.contains('/'));
        self.set(|s| {
            s.files.insert(file.into(), content.into());
        });
    }

    pub(super) fn remove(&self, file: &str) {
        self.set(|s| {
            s.files.remove(file);
        });
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub(super) fn requests(&self) -> Vec<Received> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Content bytes sent in answer to a request.
    pub(super) fn sent(&self, request: &Received) -> usize {
        self.state.lock().unwrap().sent[request.number]
    }
}

fn answer(stream: TcpStream, name: &str, address: &str, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut headers = Vec::new();
    for header in reader.by_ref().lines() {
        let header = header.unwrap();
        match header.split_once(':') {
            Some((key, value)) => headers.push((key.trim().to_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut state = state.lock().unwrap();
    let number = state.requests.len();
    let request = Received { path, headers, number };
    state.requests.push(request.clone());
    let response = respond(&method, &request, name, address, &mut state);
    let mut text = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", response.status);
    for (key, value) in &response.headers {
        text.push_str(&format!("{key}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let body = if method == "HEAD" { &[][..] } else { &response.body[..] };
    state.sent.push(body.len());
    // A client that hangs up early, as after an error, is none of the server's business.
    let _ = (&stream).write_all(text.as_bytes()).and_then(|()| (&stream).write_all(body));
}

struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn short(status: u16, body: &str) -> Response {
    Response { status, headers: vec![("Content-Length", body.len().to_string())], body: body.into() }
}

fn respond(method: &str, request: &Received, name: &str, address: &str, state: &mut State) -> Response {
    let path = request.path.as_str();
    if let Some(file) = path.strip_prefix("/cdn/") {
        return content(file, request, state);
    }
    let bearer = state.token.as_ref().map(|token| format!("Bearer {token}"));
    if bearer.is_some() && request.header("authorization") != bearer {
        return short(401, "");
    }
    if path == format!("/api/models/{name}/revision/main") {
        let files: Vec<_> = state.files.keys().map(|f| serde_json::json!({"rfilename": f})).collect();
        return short(200, &serde_json::json!({"sha": state.commit, "siblings": files}).to_string());
    }
    // A repository under its old name: the hub sends such requests on within itself.
    if let Some(file) = path.strip_prefix(&format!("/{name}/resolve/{COMMIT}/")) {
        let to = format!("/moved/{file}");
        return Response {
            status: 307,
            headers: vec![("Location", to), ("Content-Length", "0".into())],
            body: vec![],
        };
    }
    let Some((file, bytes)) = path.strip_prefix("/moved/").and_then(|f| Some((f, state.files.get(f)?)))
    else {
        return short(404, "");
    };
    let size = (bytes.len() - state.announce_less).to_string();
    let etag = format!("\"{}\"", state.etag.clone().unwrap_or_else(|| etag(file)));
    if file.ends_with(".safetensors") {
        let to = format!("http://{address}/cdn/{file}");
        let headers = vec![
            ("Location", to),
            ("X-Linked-Etag", etag),
            ("X-Linked-Size", size),
            ("Content-Length", "0".into()),
        ];
        return Response { status: 302, headers, body: vec![] };
    }
    if method == "HEAD" {
        let headers = vec![("ETag", format!("W/{etag}")), ("Content-Length", size)];
        return Response { status: 200, headers, body: vec![] };
    }
    content(file, request, state)
}

/// A file's content, or the part of it that is asked for.
fn content(file: &str, request: &Received, state: &mut State) -> Response {
    let bytes = &state.files[file];
    if state.broken.as_deref() == Some(file) {
        return short(503, "");
    }
    let from = request.header("range").filter(|_| state.ranges).map(|range| {
        let from = range.strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')).unwrap();
        from.parse::<usize>().unwrap()
    });
    let start = from.unwrap_or(0);
    if start >= bytes.len() {
        return short(416, "");
    }
    let mut body = bytes[start..].to_vec();
    let mut headers = vec![("Content-Length", body.len().to_string())];
    if from.is_some() {
        headers.push(("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())));
    }
    if let Some((_, after)) = state.cut.take_if(|(cut, _)| cut == file) {
        body.truncate(after);
    }
    Response { status: if from.is_some() { 206 } else { 200 }, headers, body }
}
