// How the page asks the server. The token is kept here and nowhere else.
const RETRIES = 12;
let token = "";

export const setToken = (text) => { token = text; };
export const hasToken = () => token !== "";

export class Problem extends Error {
  constructor(sentence, status = 0) { super(sentence); this.status = status; }
}

export async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Is it still running? Then the image may be too large for it.");
  }
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  const problem = new Problem(said.error ?? `The server answers with status ${answer.status}.`, answer.status);
  problem.seconds = Number(answer.headers.get("Retry-After")) || 0;
  throw problem;
}

export async function patiently(call, signal) {
  for (let n = 1; ; n += 1) {
    try {
      return await call();
    } catch (problem) {
      if (problem.status !== 503 || n === RETRIES || signal?.aborted) throw problem;
      await new Promise((go) => setTimeout(go, 1000 * Math.min(problem.seconds || 1, 10)));
    }
  }
}
