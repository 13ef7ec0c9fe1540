// Does something again and again: one at a time, less often while it fails, and not while nobody looks at the tab. What
// it does, and what a failure means, is its caller's.

// After a failure it is tried again soon, as most are short, and then at twice the pause each time; the longest one
// leaves a node in trouble alone, and still sees it come back.
const FIRST_PAUSE_MS = 2000;
const LONGEST_PAUSE_MS = 30_000;

/// `work(signal)` is a promise; `failed(error)` hears what it rejects with.
export class Poll {
    #period_ms;
    #work;
    #failed;
    #failures = 0;
    #timer = null;
    #running = null;
    #stopped = false;
    #looked = () => this.#onLooked();

    constructor(period_ms, work, failed = () => {}) {
        this.#period_ms = period_ms;
        this.#work = work;
        this.#failed = failed;
        document.addEventListener('visibilitychange', this.#looked);
        this.now();
    }

    stop() {
        this.#stopped = true;
        clearTimeout(this.#timer);
        this.#running?.abort();
        document.removeEventListener('visibilitychange', this.#looked);
    }

    /// At once, unless it is under way.
    now() {
        clearTimeout(this.#timer);
        if (!this.#stopped && this.#running === null && !document.hidden) {
            this.#run();
        }
    }

    async #run() {
        const began_ms = performance.now();
        const running = new AbortController();
        this.#running = running;
        try {
            await this.#work(running.signal);
            this.#failures = 0;
        } catch (error) {
            if (!this.#stopped) {
                this.#failures += 1;
                this.#failed(error);
            }
        }
        this.#running = null;
        if (!this.#stopped && !document.hidden) {
            this.#timer = setTimeout(() => this.now(), this.#pause_ms(performance.now() - began_ms));
        }
    }

    #pause_ms(took_ms) {
        if (this.#failures > 0) {
            return Math.min(FIRST_PAUSE_MS * 2 ** Math.min(this.#failures - 1, 10), LONGEST_PAUSE_MS);
        }
        return Math.max(this.#period_ms - took_ms, this.#period_ms / 4);
    }

    #onLooked() {
        if (document.hidden) {
            clearTimeout(this.#timer);
        } else {
            this.now();
        }
    }
}
