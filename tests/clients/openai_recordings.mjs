// Recordings of Chat Completions and Responses: what the OpenAI client for Node makes of them must be the same
// through the gateway as from the recording's own server. Started by suite.py.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { test } from 'node:test';

const env = process.env;
const { OpenAI } = createRequire(path.join(env.CLIENT_FOLDER, 'package.json'))(env.CLIENT.replace('-node', ''));
const recordings = JSON.parse(readFileSync(env.RECORDINGS, 'utf8')).filter(({ api }) => api !== 'messages');
const FUNCTION = 'recorded/';

/** What the client saw of the answer; an error is the last of it. */
async function seen(url, model, { api, stream, request }) {
  const client = new OpenAI({ apiKey: env.WEIR_KEY, baseURL: `${url}/v1`, maxRetries: 0, timeout: 30_000 });
  const events = [];
  const usage = api === 'chat' && stream ? { stream_options: { include_usage: true } } : {};
  try {
    const body = { model, stream, ...request, ...usage };
    const answer = await (api === 'chat' ? client.chat.completions.create(body) : client.responses.create(body));
    if (!stream) return [answer];
    for await (const event of answer) events.push(event);
  } catch (error) {
    assert.ok(error instanceof OpenAI.APIError, error.stack);
    events.push({ kind: error.constructor.name, status: error.status, error: error.error });
  }
  return events;
}

function renamed(event, model) {
  const copy = structuredClone(event);
  if (typeof copy.response?.model === 'string') copy.response.model = model;
  if (typeof copy.model === 'string') copy.model = model;
  return copy;
}

if (recordings.length === 0) console.log('SKIPPED: no recordings: WEIR_CASES names no folder of them');

for (const each of recordings) {
  test(each.name, async () => {
    const model = FUNCTION + each.name;
    const direct = await seen(env.WEIR_UPSTREAM_URL, each.name, each);
    const through = await seen(env.WEIR_URL, model, each);
    if (!each.whole) assert.equal(through.pop().kind, 'APIError', 'a broken stream must not end in silence');
    assert.deepEqual(through, direct.map((event) => renamed(event, model)));
  });
}
