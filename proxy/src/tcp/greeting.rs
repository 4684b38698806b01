//! The one byte that the side of the application sends before everything else on an opaque connection in the mesh.
//!
//! It says whether the application is there, before anything has been sent to it: what is refused here goes to another
//! instance, and nobody has to guess whether it was seen. The name of the protocol in the handshake stands for this
//! form; another form gets another name.

use outrigger_mesh::Reason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::Error;

/// What the application's side says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The application is connected; what follows are its bytes.
    Ready,
    /// The application can not be connected to.
    Away,
    /// The port takes no opaque connections.
    NotOpaque,
    /// The instance is ending.
    Draining,
    /// The sidecar has no room.
    Overloaded,
    /// The caller may not.
    Denied,
}

impl Greeting {
    const ALL: [Self; 6] =
        [Self::Ready, Self::Away, Self::NotOpaque, Self::Draining, Self::Overloaded, Self::Denied];

    /// What a refusal for `reason` says.
    pub fn refusing(reason: Reason) -> Self {
        match reason {
            // One that serves nothing any more is as good as gone.
            Reason::Draining | Reason::DiscoveryUnavailable => Self::Draining,
            Reason::Overloaded | Reason::BulkheadFull => Self::Overloaded,
            Reason::ConnectFailed => Self::Away,
            Reason::AuthzDenied => Self::Denied,
            _ => Self::NotOpaque,
        }
    }

    fn code(self) -> u8 {
        self as u8
    }

    /// Says it.
    pub async fn say<IO: AsyncWrite + Unpin>(self, io: &mut IO) -> std::io::Result<()> {
        io.write_all(&[self.code()]).await?;
        io.flush().await
    }

    /// Hears it. Only [`Greeting::Ready`] is no error, and every error but [`Greeting::Denied`], which every instance
    /// would say, is one that may be tried elsewhere.
    pub async fn hear<IO: AsyncRead + Unpin>(io: &mut IO) -> Result<(), Error> {
        let code = io.read_u8().await.map_err(|e| {
            Error::not_sent(Reason::UpstreamReset, format!("the sidecar of the endpoint broke off: {e}"))
        })?;
        let refused = |reason, why: &'static str| Err(Error::not_sent(reason, why));
        match Self::ALL.into_iter().find(|g| g.code() == code) {
            Some(Self::Ready) => Ok(()),
            Some(Self::Away) => refused(Reason::ConnectFailed, "the application does not accept connections"),
            Some(Self::NotOpaque) => refused(Reason::NoRoute, "the endpoint's port is not opaque"),
            Some(Self::Draining) => refused(Reason::Draining, "the endpoint is ending"),
            Some(Self::Overloaded) => refused(Reason::Overloaded, "the endpoint has no room"),
            Some(Self::Denied) => Err(Error::downstream(
                Reason::AuthzDenied,
                "the service does not take connections of this caller",
            )),
            None => refused(Reason::UpstreamReset, "the endpoint's sidecar says something unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_but_ready_is_an_error_that_may_be_tried_elsewhere() {
        for greeting in Greeting::ALL {
            let (mut ours, mut theirs) = tokio::io::duplex(8);
            greeting.say(&mut ours).await.unwrap();
            let heard = Greeting::hear(&mut theirs).await;
            assert_eq!(heard.is_ok(), greeting == Greeting::Ready, "{greeting:?}");
            assert!(heard.map_or_else(|e| e.unprocessed, |()| true) != (greeting == Greeting::Denied));
        }
        for bytes in [&[][..], &[99]] {
            assert!(Greeting::hear(&mut &bytes[..]).await.unwrap_err().unprocessed);
        }
    }
}
