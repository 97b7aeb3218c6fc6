//! Bodies on their way through: a request's is bounded in length and time, an answer's gives its connection back at its end.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body as EmbeddedBody;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::front::upstream::pool::Returned;
use crate::front::visit::Visit;

/// What can go wrong with a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BodyFault {
    /// It is longer than a request may be.
    #[error("the body is too long")]
    TooLarge,
    /// It took the client too long.
    #[error("the body did not come in time")]
    TooSlow,
    /// The client went away, or sent what is no body.
    #[error("the body broke off")]
    Broken,
    /// The API did not go on with its answer in time.
    #[error("the answer did not go on in time")]
    Stalled,
}

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody {
    source: Source,
    /// How many bytes more it may have.
    rest: u64,
    /// When it must have come.
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Source {
    /// It comes from the client.
    Client(Incoming),
    /// It has come.
    Whole(Option<Bytes>),
}

/// The body of an answer, and what is to be noted at its end.
#[derive(Debug)]
pub struct AnswerBody {
    kind: Kind,
    visit: Option<Box<Visit>>,
}

#[derive(Debug)]
enum Kind {
    /// From the API.
    Upstream(UpstreamBody),
    /// Of the front door's own.
    Own(Option<Bytes>),
    /// From a service within this process.
    Embedded(EmbeddedBody),
}

/// The body of the API's answer.
#[derive(Debug)]
pub struct UpstreamBody {
    body: Incoming,
    /// The connection, which is given back when the body has ended.
    connection: Option<Returned>,
    /// How long the API may pause.
    patience: Duration,
    /// When it will have paused for so long.
    due: Option<Instant>,
}

// === impl RequestBody ===

impl RequestBody {
    /// A body of at most `most` bytes that must have come within `limit`.
    #[must_use]
    pub fn new(body: Incoming, most: u64, limit: Duration) -> Self {
        Self { source: Source::Client(body), rest: most, deadline: Instant::now() + limit, timer: None }
    }

    /// Waits until all of it has come.
    ///
    /// # Errors
    /// When it does not come, or is too long.
    pub async fn whole(mut self) -> Result<Self, BodyFault> {
        let mut all = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut self).poll_frame(context)).await {
            if let Ok(data) = frame?.into_data() {
                all.extend_from_slice(&data);
            }
        }
        Ok(Self { source: Source::Whole(Some(all.into()).filter(|all: &Bytes| !all.is_empty())), ..self })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let body = match &mut self.source {
            Source::Client(body) => body,
            Source::Whole(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(context) else {
            let deadline = self.deadline;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            ready!(timer.as_mut().poll(context));
            return Poll::Ready(Some(Err(BodyFault::TooSlow)));
        };
        Poll::Ready(match frame {
            None => None,
            Some(Err(_)) => Some(Err(BodyFault::Broken)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    Some(match self.rest.checked_sub(length) {
                        Some(rest) => {
                            self.rest = rest;
                            Ok(Frame::data(data))
                        }
                        None => Err(BodyFault::TooLarge),
                    })
                }
                // Trailers are after everything that was looked at: they do not pass.
                Err(_) => None,
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Client(body) => body.is_end_stream(),
            Source::Whole(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Client(body) => body.size_hint(),
            Source::Whole(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}

// === impl AnswerBody ===

impl AnswerBody {
    /// A text of our own.
    #[must_use]
    pub fn own(text: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Own(Some(text.into())), visit: None }
    }

    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { kind: Kind::Own(None), visit: None }
    }

    /// The API's.
    #[must_use]
    pub fn upstream(body: UpstreamBody) -> Self {
        Self { kind: Kind::Upstream(body), visit: None }
    }

    /// Of a service within this process.
    #[must_use]
    pub fn embedded(body: EmbeddedBody) -> Self {
        Self { kind: Kind::Embedded(body), visit: None }
    }

    /// Notes at its end what became of the request.
    #[must_use]
    pub fn noting(self, visit: Box<Visit>) -> Self {
        Self { visit: Some(visit), ..self }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let frame = match &mut this.kind {
            Kind::Upstream(body) => ready!(Pin::new(body).poll_frame(context)).map(|frame| frame.map_err(Into::into)),
            Kind::Own(text) => text.take().map(|text| Ok(Frame::data(text))),
            Kind::Embedded(body) => ready!(Pin::new(body).poll_frame(context)).map(|frame| frame.map_err(Into::into)),
        };
        if let Some(visit) = &mut this.visit {
            match &frame {
                Some(Ok(frame)) => visit.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => visit.broke(),
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Upstream(body) => body.body.is_end_stream(),
            Kind::Own(text) => text.is_none(),
            Kind::Embedded(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Upstream(body) => body.body.size_hint(),
            Kind::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Embedded(body) => body.size_hint(),
        }
    }
}

// === impl UpstreamBody ===

impl UpstreamBody {
    /// The body of an answer that came over `connection`.
    #[must_use]
    pub fn new(body: Incoming, connection: Returned, patience: Duration) -> Self {
        Self { body, connection: Some(connection), patience, due: None }
    }

    /// Gives the connection back where nothing more will come over it for this answer.
    fn give_back(&mut self, has_ended: bool) {
        if let Some(connection) = self.connection.take_if(|_| has_ended) {
            connection.give_back();
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.body).poll_frame(context);
        if polled.is_pending()
            && let Some(connection) = &mut this.connection
        {
            connection.go_on(context);
            polled = Pin::new(&mut this.body).poll_frame(context);
            if polled.is_pending() {
                let due = *this.due.get_or_insert_with(|| Instant::now() + this.patience);
                ready!(connection.poll_due(due, context));
                return Poll::Ready(Some(Err(BodyFault::Stalled)));
            }
        }
        let frame = ready!(polled);
        this.due = None;
        if frame.is_none() {
            self.give_back(true);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|_| BodyFault::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        // A body of known length is not asked again once it is whole.
        let has_ended = self.body.is_end_stream();
        self.give_back(has_ended);
    }
}
