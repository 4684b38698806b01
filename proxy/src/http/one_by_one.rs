//! The requests of an HTTP/1 connection, answered one after the other by a future that lives as long as the connection.
//!
//! hyper takes a future for each request and puts it in its place. What answering a request takes is some kilobytes, and
//! they would be copied each time; here they lie still, and what hyper gets is a handle.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Answers questions, one at a time.
pub(super) struct OneByOne<Q, A, F> {
    answer: Rc<F>,
    table: Rc<Table<Q, A>>,
    /// Made with the first question, and anew after one whose answer nobody waited for.
    work: Rc<RefCell<Option<Work>>>,
}

type Work = Pin<Box<dyn Future<Output = Infallible>>>;

/// Where the question lies, and then the answer.
struct Table<Q, A> {
    question: Cell<Option<Q>>,
    answer: Cell<Option<A>>,
}

impl<Q, A, F> OneByOne<Q, A, F>
where
    Q: 'static,
    A: 'static,
    F: AsyncFn(Q) -> A + 'static,
{
    pub(super) fn new(answer: F) -> Self {
        let table = Table { question: Cell::new(None), answer: Cell::new(None) };
        Self { answer: Rc::new(answer), table: Rc::new(table), work: Rc::default() }
    }

    /// The answer to `question`. Whoever asked before has been answered, or does not wait any more.
    pub(super) fn ask(&self, question: Q) -> Asked<Q, A> {
        self.table.question.set(Some(question));
        self.work
            .borrow_mut()
            .get_or_insert_with(|| Box::pin(work(Rc::clone(&self.answer), Rc::clone(&self.table))));
        Asked { table: Rc::clone(&self.table), work: Rc::clone(&self.work), answered: false }
    }
}

async fn work<Q, A>(answer: Rc<impl AsyncFn(Q) -> A>, table: Rc<Table<Q, A>>) -> Infallible {
    loop {
        let question =
            std::future::poll_fn(|_| table.question.take().map_or(Poll::Pending, Poll::Ready)).await;
        table.answer.set(Some(answer(question).await));
    }
}

/// Waits for an answer. Dropped before it is there, it ends the work on it.
pub(super) struct Asked<Q, A> {
    table: Rc<Table<Q, A>>,
    work: Rc<RefCell<Option<Work>>>,
    answered: bool,
}

impl<Q, A> Future for Asked<Q, A> {
    type Output = A;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<A> {
        let this = self.get_mut();
        if let Some(work) = &mut *this.work.borrow_mut() {
            // It goes round for ever; what counts is whether it has come to an answer.
            let _never = work.as_mut().poll(cx);
        }
        let Some(answer) = this.table.answer.take() else { return Poll::Pending };
        this.answered = true;
        Poll::Ready(answer)
    }
}

impl<Q, A> Drop for Asked<Q, A> {
    fn drop(&mut self) {
        if !self.answered {
            self.table.question.take();
            let given_up = self.work.borrow_mut().take();
            drop(given_up);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn one_after_the_other_is_answered_and_nobody_gets_the_answer_to_what_another_asked() {
        let twice = OneByOne::new(async |n: u32| {
            tokio::task::yield_now().await;
            2 * n
        });
        for n in 0..5 {
            assert_eq!(twice.ask(n).await, 2 * n);
        }
        let mut given_up = Box::pin(twice.ask(7));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        drop(twice.ask(8));
        assert_eq!(twice.ask(9).await, 18);
    }

    #[tokio::test]
    async fn whoever_does_not_wait_any_more_ends_the_work_on_the_answer_at_once() {
        let service = OneByOne::new(async |mut gone: oneshot::Sender<()>| {
            std::future::pending::<()>().await;
            gone.closed().await;
        });
        let (sender, mut receiver) = oneshot::channel();
        let mut asked = Box::pin(service.ask(sender));
        assert!(futures_util::poll!(&mut asked).is_pending());
        assert_eq!(receiver.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(asked);
        assert_eq!(receiver.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let (sender, mut receiver) = oneshot::channel();
        let asked = Box::pin(service.ask(sender));
        drop((asked, service));
        assert_eq!(receiver.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
