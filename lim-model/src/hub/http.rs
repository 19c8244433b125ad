//! Requests to the hub: descriptions, file headers, and downloads that go on where they were cut.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::Hub;
use crate::{Error, Result};

/// Attempts in a row that bring no byte before a download is given up.
const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const REDIRECTS: usize = 5;

/// Talks to the hub about one model.
pub(super) struct Client<'a> {
    hub: &'a Hub,
    model: &'a str,
    agent: Agent,
}

/// A file on the server.
pub(super) struct Remote {
    url: String,
    /// Name of its content: a plain file name.
    pub(super) etag: String,
    /// Bytes.
    pub(super) size: u64,
}

/// A failure that may pass, or one that will not.
enum Failure {
    Passing(String),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(hub: &'a Hub, model: &'a str) -> Self {
        // The token is not sent along with redirects: ureq's default.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .user_agent(concat!("lim/", env!("CARGO_PKG_VERSION")))
            .build();
        Client { hub, model, agent: config.into() }
    }

    fn error(&self, reason: String) -> Error {
        Error::Hub { model: self.model.into(), reason }
    }

    fn bearer(&self) -> Option<String> {
        self.hub.token.as_ref().map(|token| format!("Bearer {token}"))
    }

    fn get(&self, url: &str, from: u64) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(bearer) = self.bearer() {
            request = request.header("authorization", bearer);
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.call()
    }

    /// The URL and the body of a description.
    pub(super) fn get_json(&self, path: &str) -> Result<(String, Vec<u8>)> {
        let url = format!("{}/{path}", self.hub.endpoint);
        let failed = |e: ureq::Error| self.error(format!("{url}: {e}"));
        let mut response = self.get(&url, 0).map_err(failed)?;
        self.check(&url, response.status().as_u16(), response.headers())?;
        let body = response.body_mut().read_to_vec().map_err(failed)?;
        Ok((url, body))
    }

    /// What the server says of the file at `path`: the hub answers large files with a redirect to another host, and
    /// its own headers, not that host's, name the content. Redirects within the hub are followed here, with the token.
    pub(super) fn head(&self, path: &str) -> Result<Remote> {
        let file = format!("{}/{path}", self.hub.endpoint);
        let mut url = file.clone();
        for _ in 0..REDIRECTS {
            let mut request = self.agent.head(&url);
            if let Some(bearer) = self.bearer() {
                request = request.header("authorization", bearer);
            }
            let response = request.config().max_redirects(0).build().call();
            let response = response.map_err(|e| self.error(format!("{url}: {e}")))?;
            self.check(&url, response.status().as_u16(), response.headers())?;
            let headers = response.headers();
            match text(headers, "location").filter(|to| to.starts_with('/') && !to.starts_with("//")) {
                Some(path) => url = format!("{}{path}", origin(&self.hub.endpoint)),
                None => return self.remote(url, headers),
            }
        }
        Err(self.error(format!("{file}: more than {REDIRECTS} redirects")))
    }

    fn remote(&self, url: String, headers: &HeaderMap) -> Result<Remote> {
        let header = |names: [&str; 2]| names.into_iter().find_map(|name| text(headers, name));
        let etag =
            header(["x-linked-etag", "etag"]).map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let size = header(["x-linked-size", "content-length"]).and_then(|size| size.parse().ok());
        match (etag.filter(|etag| is_plain_name(etag)), size) {
            (Some(etag), Some(size)) => Ok(Remote { etag: etag.into(), size, url }),
            (None, _) => Err(self.error(format!("{url}: no usable etag, found {etag:?}"))),
            (_, None) => Err(self.error(format!("{url}: the server does not say how long the file is"))),
        }
    }

    /// Downloads `remote` to `path`, from the byte where an earlier attempt stopped. `progress` is told the bytes
    /// there are.
    pub(super) fn download(&self, remote: &Remote, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(path);
        let mut file = file.map_err(Error::io(path))?;
        let mut wait = FIRST_WAIT;
        let mut idle = 0;
        loop {
            let before = file.metadata().map_err(Error::io(path))?.len();
            let failure = match self.attempt(remote, &mut file, path, progress) {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) => reason,
            };
            let after = file.metadata().map_err(Error::io(path))?.len();
            (idle, wait) = if after > before { (0, FIRST_WAIT) } else { (idle + 1, wait * 2) };
            if idle == ATTEMPTS {
                let reason = format!("{}: {failure}, {after} of {} bytes are kept", remote.url, remote.size);
                return Err(self.error(reason));
            }
            std::thread::sleep(wait);
        }
    }

    /// One request for what is missing.
    fn attempt(
        &self,
        remote: &Remote,
        file: &mut File,
        path: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let io = |e| Failure::Final(Error::io(path)(e));
        let mut done = file.metadata().map_err(io)?.len();
        if done > remote.size {
            file.set_len(0).map_err(io)?;
            done = 0;
        }
        progress(done);
        if done == remote.size {
            return Ok(());
        }
        let passing = |e: ureq::Error| Failure::Passing(e.to_string());
        let response = self.get(&remote.url, done).map_err(passing)?;
        let status = response.status().as_u16();
        let goes_on = text(response.headers(), "content-range")
            .is_some_and(|range| range.starts_with(&format!("bytes {done}-")));
        match status {
            206 if goes_on => {}
            // The server has not understood where to go on, so from the beginning.
            200 => done = 0,
            206 | 416 => {
                file.set_len(0).map_err(io)?;
                return Err(Failure::Passing(format!("HTTP {status} for the part from byte {done}")));
            }
            429 | 500..=599 => return Err(Failure::Passing(format!("HTTP {status}"))),
            _ => self.check(&remote.url, status, response.headers())?,
        }
        file.set_len(done).map_err(io)?;
        file.seek(SeekFrom::Start(done)).map_err(io)?;
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut piece = vec![0; 1 << 20];
        loop {
            let read = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) => return Err(Failure::Passing(format!("the connection broke: {e}"))),
            };
            file.write_all(&piece[..read]).map_err(io)?;
            done += read as u64;
            if done > remote.size {
                let reason = format!("{}: more than the announced {} bytes", remote.url, remote.size);
                file.set_len(0).map_err(io)?;
                return Err(Failure::Final(self.error(reason)));
            }
            progress(done);
        }
        match done == remote.size {
            true => file.sync_all().map_err(io),
            false => Err(Failure::Passing(format!("the connection ended after {done} bytes"))),
        }
    }

    fn check(&self, url: &str, status: u16, headers: &HeaderMap) -> Result<()> {
        let token = match self.hub.token {
            Some(_) => "the token in HF_TOKEN has no access to it",
            None => "it does not exist, or is private or gated: set HF_TOKEN",
        };
        let said = text(headers, "x-error-message").map_or(String::new(), |said| format!(" ({said})"));
        let what = match status {
            200..=399 => return Ok(()),
            401 | 403 => format!("{token}{said}"),
            404 => format!("not found{said}"),
            _ => format!("the server failed{said}"),
        };
        Err(self.error(format!("{url}: HTTP {status}: {what}")))
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Scheme and host of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |i| i + 3);
    url[host..].find('/').map_or(url, |i| &url[..host + i])
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}
