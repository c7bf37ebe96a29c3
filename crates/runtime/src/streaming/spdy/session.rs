//! A SPDY connection: its streams, one task that reads frames and one (`writer`) that writes them.
//!
//! Frames that carry a stream's own life (reply, data, FIN) go through one bounded queue and stay
//! in order. Answers to the other side (ping echoes, window updates, resets of bad streams) have a
//! small queue of their own, so that reading never waits for writing. Follows spdystream's
//! `Connection` where that matters to clients: data of unknown streams is dropped, GOAWAY ends the
//! session as the end of the transport does.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::{
    codec::{FramedRead, FramedWrite},
    sync::CancellationToken,
};

use super::{
    flow::{INITIAL_WINDOW_BYTES, SendWindow},
    frame::{Frame, FrameDecoder, FrameEncoder, SETTING_INITIAL_WINDOW_SIZE, StreamId, reset},
    headers::Headers,
    stream::{Incoming, Stream},
    writer::FrameWriter,
};

/// Streams open at once in one session; a port-forward connection takes two.
pub const MAX_STREAMS: usize = 1024;
/// Frames waiting to be written; then writers wait.
const OUTBOUND_FRAMES: usize = 64;
/// Answers waiting to be written; a peer that provokes more without reading is cut off.
const CONTROL_FRAMES: usize = 256;
/// Pieces of data a stream holds unread; then the whole session waits for its reader.
const INBOUND_PIECES: usize = 64;
/// Bytes received before the connection's own window is replenished.
const SESSION_WINDOW_UPDATE_BYTES: u32 = 32 * 1024;
/// Largest stream id: ids have 31 bits.
const MAX_STREAM_ID: StreamId = 0x7fff_ffff;

/// Which end of the connection this is. Clients open odd streams, servers even ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

impl Role {
    fn first_id(self) -> StreamId {
        match self {
            Role::Client => 1,
            Role::Server => 2,
        }
    }

    fn owns(self, id: StreamId) -> bool {
        id % 2 == self.first_id() % 2
    }
}

/// Why something cannot be done on a session.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SessionError {
    #[error("SPDY session is closed")]
    Closed,
    #[error("stream was refused by the other side")]
    Refused,
    #[error("session has {MAX_STREAMS} streams open")]
    TooManyStreams,
}

/// What the writing task is asked to do.
pub(super) enum Outbound {
    Frame(Frame),
    /// Say GOAWAY, flush and shut the transport down.
    Close,
}

/// What streams and both tasks share.
pub(super) struct Shared {
    role: Role,
    state: Mutex<State>,
    pub(super) outbound: mpsc::Sender<Outbound>,
    control: mpsc::Sender<Frame>,
    /// Told when `State::to_finish` has grown.
    pub(super) finish: Notify,
    /// Whether the other side takes part in flow control; see `flow`.
    pub(super) windows_bind: AtomicBool,
    /// Cancelled when nothing more will be read.
    pub(super) closed: CancellationToken,
}

struct State {
    streams: HashMap<StreamId, Entry>,
    next_id: StreamId,
    /// Highest id the other side has opened.
    last_peer_id: StreamId,
    /// Window new streams start with, as the other side has set it.
    initial_window: i64,
    /// Streams dropped without shutdown, whose FIN is still to be sent.
    to_finish: Vec<StreamId>,
    next_ping: u32,
    pings: HashMap<u32, oneshot::Sender<()>>,
}

struct Entry {
    /// Where received data goes; `None` after the other side's FIN.
    inbound: Option<mpsc::Sender<Bytes>>,
    window: Arc<SendWindow>,
    /// Who waits for SYN_REPLY, for streams opened here.
    reply: Option<oneshot::Sender<Result<(), SessionError>>>,
    /// FIN was queued.
    local_finished: bool,
}

/// One connection. Dropping it ends both tasks; `close` says goodbye first.
pub struct Session {
    shared: Arc<Shared>,
    incoming: mpsc::Receiver<Incoming>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Session {
    /// Speaks SPDY over `io`, whose HTTP upgrade is already done. Must be called within a runtime.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + 'static, role: Role) -> Self {
        let (outbound, outbound_receiver) = mpsc::channel(OUTBOUND_FRAMES);
        let (control, control_receiver) = mpsc::channel(CONTROL_FRAMES);
        let (incoming_sender, incoming) = mpsc::channel(MAX_STREAMS);
        let shared = Arc::new(Shared {
            role,
            state: Mutex::new(State::new(role)),
            outbound,
            control,
            finish: Notify::new(),
            windows_bind: AtomicBool::new(false),
            closed: CancellationToken::new(),
        });
        let (read, write) = tokio::io::split(io);
        let frames = FramedRead::new(read, FrameDecoder::default());
        let reader = tokio::spawn(read_frames(shared.clone(), frames, incoming_sender));
        let sink = FramedWrite::new(write, FrameEncoder::default());
        let writer = FrameWriter::new(shared.clone(), sink, outbound_receiver, control_receiver);
        let writer = tokio::spawn(writer.run());
        Self { shared, incoming, reader, writer }
    }

    /// The next stream the other side opens; `None` when the session has ended.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Opens a stream and waits until the other side has accepted it.
    pub async fn open(&self, headers: Headers) -> Result<Stream, SessionError> {
        let permit = self.shared.outbound.reserve().await.map_err(|_| SessionError::Closed)?;
        let (reply, replied) = oneshot::channel();
        let (id, inbound, window) = {
            // The frame is queued under the lock: ids must rise in the order they are written.
            let mut state = self.shared.state.lock();
            let id = state.take_id(&self.shared.closed)?;
            let (inbound, window) = state.insert(id, Some(reply));
            permit.send(Outbound::Frame(Frame::SynStream {
                id,
                associated: 0,
                priority: 0,
                fin: false,
                unidirectional: false,
                headers: headers.clone(),
            }));
            (id, inbound, window)
        };
        let stream = Stream::new(id, headers, inbound, window, self.shared.clone());
        replied.await.map_err(|_| SessionError::Closed)??;
        Ok(stream)
    }

    /// Sends a ping and waits for its echo.
    pub async fn ping(&self) -> Result<(), SessionError> {
        let (sender, echoed) = oneshot::channel();
        let id = self.shared.state.lock().add_ping(sender);
        self.shared.send(Outbound::Frame(Frame::Ping { id })).await?;
        echoed.await.map_err(|_| SessionError::Closed)
    }

    /// Completes when the other side has gone.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Writes all that is queued, says GOAWAY, and waits for the other side to go: a socket closed
    /// with data unread is reset, and a reset takes the last output with it. The caller bounds the
    /// time, since a peer that does not read can hold this up.
    pub async fn close(mut self) {
        if self.shared.send(Outbound::Close).await.is_err() {
            return;
        }
        for task in [&mut self.writer, &mut self.reader] {
            if let Err(error) = task.await {
                tracing::debug!(%error, "SPDY task ended badly");
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
        self.shared.end();
    }
}

impl State {
    fn new(role: Role) -> Self {
        Self {
            streams: HashMap::new(),
            next_id: role.first_id(),
            last_peer_id: 0,
            initial_window: INITIAL_WINDOW_BYTES,
            to_finish: Vec::new(),
            next_ping: role.first_id(),
            pings: HashMap::new(),
        }
    }

    fn take_id(&mut self, closed: &CancellationToken) -> Result<StreamId, SessionError> {
        if closed.is_cancelled() || self.next_id > MAX_STREAM_ID {
            return Err(SessionError::Closed);
        }
        if self.streams.len() >= MAX_STREAMS {
            return Err(SessionError::TooManyStreams);
        }
        let id = self.next_id;
        self.next_id += 2;
        Ok(id)
    }

    fn insert(
        &mut self,
        id: StreamId,
        reply: Option<oneshot::Sender<Result<(), SessionError>>>,
    ) -> (mpsc::Receiver<Bytes>, Arc<SendWindow>) {
        let (inbound, receiver) = mpsc::channel(INBOUND_PIECES);
        let window = Arc::new(SendWindow::new(self.initial_window));
        let entry = Entry { inbound: Some(inbound), window: window.clone(), reply, local_finished: false };
        self.streams.insert(id, entry);
        (receiver, window)
    }

    fn add_ping(&mut self, sender: oneshot::Sender<()>) -> u32 {
        let id = self.next_ping;
        self.next_ping = self.next_ping.wrapping_add(2);
        self.pings.insert(id, sender);
        id
    }

    /// Notes FIN in the given direction and forgets a stream that is finished in both.
    fn finish(&mut self, id: StreamId, note: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.streams.get_mut(&id) {
            note(entry);
            if entry.local_finished && entry.inbound.is_none() {
                self.streams.remove(&id);
            }
        }
    }
}

impl Shared {
    pub(super) async fn send(&self, outbound: Outbound) -> Result<(), SessionError> {
        self.outbound.send(outbound).await.map_err(|_| SessionError::Closed)
    }

    /// Tells the sender of `id` that `bytes` were consumed; false when the queue is full just now.
    pub(super) fn report_room(&self, id: StreamId, bytes: u32) -> bool {
        self.control.try_send(Frame::WindowUpdate { id, delta: bytes }).is_ok()
    }

    pub(super) fn local_finished(&self, id: StreamId) {
        self.state.lock().finish(id, |entry| entry.local_finished = true);
    }

    /// Has FIN sent once all that is queued now has been written.
    pub(super) fn finish_later(&self, id: StreamId) {
        let mut state = self.state.lock();
        if state.streams.contains_key(&id) {
            state.to_finish.push(id);
            self.finish.notify_one();
        }
    }

    pub(super) fn forget(&self, id: StreamId) {
        self.state.lock().streams.remove(&id);
    }

    /// The dropped streams whose FIN is to be sent now.
    pub(super) fn take_dropped(&self) -> Vec<StreamId> {
        std::mem::take(&mut self.state.lock().to_finish)
    }

    pub(super) fn last_peer_id(&self) -> StreamId {
        self.state.lock().last_peer_id
    }

    /// Ends all streams: readers see the end, writers fail, whoever waits is told.
    pub(super) fn end(&self) {
        self.closed.cancel();
        let mut state = self.state.lock();
        state.pings.clear();
        for (_, entry) in state.streams.drain() {
            entry.window.kill();
        }
    }

    fn answer(&self, frame: Frame) -> ControlFlow<()> {
        match self.control.try_send(frame) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

async fn read_frames<R: AsyncRead + Unpin>(
    shared: Arc<Shared>,
    mut frames: FramedRead<R, FrameDecoder>,
    incoming: mpsc::Sender<Incoming>,
) {
    let mut unreported = 0;
    while let Some(frame) = frames.next().await {
        let flow = match frame {
            Ok(frame) => handle(&shared, frame, &incoming, &mut unreported).await,
            Err(error) => {
                tracing::debug!(%error, "SPDY session ends");
                break;
            }
        };
        if flow.is_break() {
            break;
        }
    }
    shared.end();
}

async fn handle(
    shared: &Arc<Shared>,
    frame: Frame,
    incoming: &mpsc::Sender<Incoming>,
    unreported: &mut u32,
) -> ControlFlow<()> {
    match frame {
        Frame::Data { id, fin, data } => {
            *unreported += data.len() as u32;
            if *unreported >= SESSION_WINDOW_UPDATE_BYTES && shared.report_room(0, *unreported) {
                *unreported = 0;
            }
            receive(shared, id, fin, data).await;
        }
        Frame::SynStream { id, fin, unidirectional, headers, .. } => {
            return open_incoming(shared, id, fin, unidirectional, headers, incoming);
        }
        Frame::SynReply { id, fin, .. } => {
            let mut state = shared.state.lock();
            answer_opener(&mut state, id, Ok(()));
            if fin {
                state.finish(id, |entry| entry.inbound = None);
            }
        }
        Frame::Headers { id, fin: true, .. } => shared.state.lock().finish(id, |entry| entry.inbound = None),
        Frame::Headers { .. } => {}
        Frame::RstStream { id, .. } => {
            let mut state = shared.state.lock();
            answer_opener(&mut state, id, Err(SessionError::Refused));
            if let Some(entry) = state.streams.remove(&id) {
                entry.window.kill();
            }
        }
        Frame::Ping { id } if shared.role.owns(id) => {
            if let Some(waiting) = shared.state.lock().pings.remove(&id) {
                // Whoever sent the ping may have stopped waiting.
                waiting.send(()).ok();
            }
        }
        Frame::Ping { id } => return shared.answer(Frame::Ping { id }),
        Frame::WindowUpdate { id, delta } => give_window(shared, id, i64::from(delta)),
        Frame::Settings { values } => apply_settings(shared, &values),
        Frame::GoAway { .. } => return ControlFlow::Break(()),
    }
    ControlFlow::Continue(())
}

async fn receive(shared: &Shared, id: StreamId, fin: bool, data: Bytes) {
    let inbound = shared.state.lock().streams.get(&id).and_then(|entry| entry.inbound.clone());
    if let Some(inbound) = inbound
        && !data.is_empty()
        && inbound.send(data).await.is_err()
    {
        tracing::trace!(id, "data for a stream that nobody reads");
    }
    if fin {
        shared.state.lock().finish(id, |entry| entry.inbound = None);
    }
}

fn open_incoming(
    shared: &Arc<Shared>,
    id: StreamId,
    fin: bool,
    unidirectional: bool,
    headers: Headers,
    incoming: &mpsc::Sender<Incoming>,
) -> ControlFlow<()> {
    let mut state = shared.state.lock();
    if shared.role.owns(id) || id <= state.last_peer_id {
        return shared.answer(Frame::RstStream { id, status: reset::PROTOCOL_ERROR });
    }
    state.last_peer_id = id;
    let Some(place) = incoming.try_reserve().ok().filter(|_| state.streams.len() < MAX_STREAMS) else {
        return shared.answer(Frame::RstStream { id, status: reset::REFUSED_STREAM });
    };
    let (inbound, window) = state.insert(id, None);
    state.finish(id, |entry| {
        entry.local_finished = unidirectional;
        if fin {
            entry.inbound = None;
        }
    });
    drop(state);
    place.send(Incoming(Stream::new(id, headers, inbound, window, shared.clone())));
    ControlFlow::Continue(())
}

fn answer_opener(state: &mut State, id: StreamId, answer: Result<(), SessionError>) {
    if let Some(reply) = state.streams.get_mut(&id).and_then(|entry| entry.reply.take()) {
        // The opener may have stopped waiting; then its stream is gone as well.
        reply.send(answer).ok();
    }
}

fn give_window(shared: &Shared, id: StreamId, delta: i64) {
    shared.windows_bind.store(true, Ordering::Release);
    if let Some(entry) = shared.state.lock().streams.get(&id) {
        entry.window.give(delta);
    }
}

fn apply_settings(shared: &Shared, values: &[(u32, u32)]) {
    let initial = values.iter().rev().find(|(id, _)| *id == SETTING_INITIAL_WINDOW_SIZE);
    if let Some((_, value)) = initial {
        shared.windows_bind.store(true, Ordering::Release);
        let mut state = shared.state.lock();
        let change = i64::from(*value) - state.initial_window;
        state.initial_window = i64::from(*value);
        state.streams.values().for_each(|entry| entry.window.give(change));
    }
}
