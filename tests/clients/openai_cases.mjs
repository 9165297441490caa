// The official OpenAI client for Node: each test is what a user of it does. Started by suite.py.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';
import { describe, test } from 'node:test';

const env = process.env;
// CLIENT is `openai-node` or, an older generation, `openai-node-6`.
const { OpenAI } = createRequire(path.join(env.CLIENT_FOLDER, 'package.json'))(env.CLIENT.replace('-node', ''));

const MESSAGES = [{ role: 'user', content: 'hi' }];
const PARAMETERS = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const TOOLS = [{ type: 'function', function: { name: 'weather', parameters: PARAMETERS } }];
const FLAT_TOOLS = [{ type: 'function', name: 'weather', parameters: PARAMETERS, strict: false }];
const SLOW = { sim_tokens: '100000', sim_tps: '20' };
const WAIT_MS = 60_000;

function client({ apiKey = env.WEIR_KEY, maxRetries = 0, timeout = 30_000 } = {}) {
  return new OpenAI({ apiKey, baseURL: `${env.WEIR_URL}/v1`, maxRetries, timeout });
}

function chat(more = {}, options) {
  return client(options).chat.completions.create({ model: 'demo/sim', messages: MESSAGES, ...more });
}

async function collected(stream) {
  const seen = [];
  for await (const each of await stream) seen.push(each);
  return seen;
}

let told = 0;
async function tell(answers) {
  const name = `node-${told++}`;
  const answer = await fetch(`${env.WEIR_UPSTREAM_URL}/told/${name}`, { method: 'PUT', body: JSON.stringify(answers) });
  assert.equal(answer.status, 200);
  return name;
}

const about = (name) => ({ model: 'demo/told', messages: [{ role: 'user', content: `told:${name}` }] });
const seen = async (name) => (await fetch(`${env.WEIR_UPSTREAM_URL}/seen/${name}`)).json();
const simulated = async () => (await fetch(`${env.WEIR_SIMULATOR_URL}/sim/stats`)).json();
const sse = (events) =>
  events.map(([name, data]) => `${name ? `event: ${name}\n` : ''}data: ${JSON.stringify(data)}\n\n`).join('');

async function untilCancelled(abortsBefore) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const stats = await simulated();
    if (stats.client_aborts === abortsBefore + 1 && stats.active === 0) return;
    assert.ok(Date.now() < deadline, `the upstream was not cancelled: ${JSON.stringify(stats)}`);
  }
}

/** The error of a call that must fail, by name of its class. */
async function refused(kind, call) {
  try {
    await call();
  } catch (error) {
    assert.ok(error instanceof OpenAI[kind], `${kind} expected: ${error.constructor.name} ${error.message}`);
    return error;
  }
  assert.fail(`${kind} expected, nothing failed`);
}

describe('chat completions', () => {
  test('whole', async () => {
    const answer = await chat();
    assert.equal(answer.model, 'demo/sim');
    assert.ok(answer.choices[0].message.content);
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
    assert.ok(answer._request_id);
  });

  test('stream', async () => {
    const chunks = await collected(chat({ stream: true, max_tokens: 5, stream_options: { include_usage: true } }));
    const text = chunks.map((chunk) => chunk.choices[0]?.delta.content).filter(Boolean);
    assert.equal(text.length, 5);
    assert.ok(chunks.every((chunk) => chunk.model === 'demo/sim'));
    assert.equal(chunks.at(-1).usage.completion_tokens, 5);
  });

  test('usage that was not asked for is hidden', async () => {
    const chunks = await collected(chat({ stream: true, max_tokens: 5 }));
    assert.deepEqual(chunks.filter((chunk) => 'usage' in chunk || chunk.choices.length === 0), []);
  });

  test('tool call', async () => {
    const [choice] = (await chat({ tools: TOOLS, tool_choice: 'required' })).choices;
    const [call] = choice.message.tool_calls;
    assert.deepEqual([choice.finish_reason, call.function.name], ['tool_calls', 'weather']);
    assert.ok(JSON.parse(call.function.arguments).city);
    const result = { role: 'tool', tool_call_id: call.id, content: 'rain' };
    const next = await chat({ messages: [...MESSAGES, choice.message, result], tools: TOOLS });
    assert.ok(next.choices[0].message.content);
  });

  test('streamed tool call', async () => {
    const stream = client().chat.completions.stream({
      model: 'demo/sim', messages: MESSAGES, tools: TOOLS, tool_choice: 'required',
    });
    let pieces = 0;
    stream.on('tool_calls.function.arguments.delta', () => pieces++);
    const [call] = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
    assert.ok(pieces > 3, `${pieces} pieces`);
    assert.equal(call.function.name, 'weather');
    assert.ok(JSON.parse(call.function.arguments).city);
  });

  test('stream left early', async () => {
    const before = (await simulated()).client_aborts;
    for await (const _ of await chat({ stream: true, metadata: SLOW })) break;
    await untilCancelled(before);
  });

  test('timeout', async () => {
    const before = (await simulated()).client_aborts;
    const slow = () => chat({ metadata: { sim_tps: '0.001' } }, { timeout: 500 });
    await refused('APIConnectionTimeoutError', slow);
    await untilCancelled(before);
  });
});

describe('responses', () => {
  const respond = (more = {}) => client().responses.create({ model: 'demo/sim', input: 'hi', ...more });

  test('whole', async () => {
    const answer = await respond();
    assert.deepEqual([answer.model, answer.status], ['demo/sim', 'completed']);
    assert.ok(answer.output_text);
  });

  test('stream', async () => {
    const events = await collected(respond({ stream: true }));
    assert.deepEqual(events.slice(0, 2).map((event) => event.type), ['response.created', 'response.in_progress']);
    assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
    const last = events.at(-1);
    assert.deepEqual([last.type, last.response.model], ['response.completed', 'demo/sim']);
  });

  test('tool call', async () => {
    const [call] = (await respond({ tools: FLAT_TOOLS, tool_choice: 'required' })).output;
    assert.deepEqual([call.type, call.name], ['function_call', 'weather']);
    assert.ok(JSON.parse(call.arguments).city);
  });

  test('streamed tool call', async () => {
    const events = await collected(respond({ tools: FLAT_TOOLS, tool_choice: 'required', stream: true }));
    const deltas = events.filter((event) => event.type === 'response.function_call_arguments.delta');
    assert.equal(deltas.map((event) => event.delta).join(''), events.at(-1).response.output[0].arguments);
  });
});

describe('embeddings', () => {
  const embed = (input, more = {}) => client().embeddings.create({ model: 'demo/sim', input, ...more });

  test('base64 and float are the same', async () => {
    const [unpacked] = (await embed('a')).data;
    const [floats] = (await embed('a', { encoding_format: 'float' })).data;
    assert.equal(unpacked.embedding.length, 256);
    const packed = Float32Array.from(floats.embedding);
    assert.deepEqual([...unpacked.embedding], [...packed]);
  });

  test('inputs', async () => {
    for (const [input, count] of [['a', 1], [['a', 'b'], 2], [[1, 2, 3], 1], [[[1, 2], [3]], 2]]) {
      const answer = await embed(input);
      assert.deepEqual(answer.data.map((each) => each.index), [...Array(count).keys()]);
    }
  });

  test('bad inputs', async () => {
    for (const input of ['', [], [''], Array(2049).fill('a')]) {
      assert.equal((await refused('BadRequestError', () => embed(input))).param, 'input');
    }
  });
});

test('models', async () => {
  const names = (await collected(client().models.list())).map((model) => model.id);
  assert.ok(names.includes('demo/sim'));
  assert.equal((await client().models.retrieve('demo/sim')).id, 'demo/sim');
  assert.equal((await refused('NotFoundError', () => client().models.retrieve('demo/none'))).code, 'model_not_found');
});

describe('errors', () => {
  test('of the gateway', async () => {
    const table = [
      ['BadRequestError', 'missing_messages', () => chat({ messages: undefined })],
      ['AuthenticationError', 'invalid_api_key', () => chat({}, { apiKey: 'wrong' })],
      ['PermissionDeniedError', 'model_not_allowed', () => chat({ model: 'demo/told' }, { apiKey: env.WEIR_NARROW_KEY })],
      ['NotFoundError', 'model_not_found', () => chat({ model: 'demo/none' })],
      ['InternalServerError', 'upstream_unreachable', () => chat({ model: 'demo/gone' })],
    ];
    for (const [kind, code, call] of table) {
      const error = await refused(kind, call);
      assert.equal(error.code, code);
      assert.ok(error.error.message && error.requestID, code);
    }
  });

  test('a spent budget is not asked again', async () => {
    const error = await refused('RateLimitError', async () => {
      for (let turn = 0; turn < 100; turn++) await chat({ model: 'demo/weekly', max_tokens: 16 }, { maxRetries: 2 });
    });
    assert.equal(error.code, 'rate_limit_exceeded');
    assert.equal(error.headers.get('x-should-retry'), 'false');
  });

  test('of the upstream arrive as they are', async () => {
    const table = {
      400: 'BadRequestError', 401: 'AuthenticationError', 403: 'PermissionDeniedError', 404: 'NotFoundError',
      409: 'ConflictError', 422: 'UnprocessableEntityError', 429: 'RateLimitError', 500: 'InternalServerError',
      503: 'InternalServerError',
    };
    for (const [status, kind] of Object.entries(table)) {
      const fault = { message: `fault ${status}`, type: 'a_type', param: 'p', code: 'a_code' };
      const name = await tell([{ status: Number(status), body: { error: fault } }]);
      const error = await refused(kind, () => chat(about(name)));
      assert.deepEqual([error.status, error.error], [Number(status), fault]);
      assert.ok(error.requestID);
    }
  });
});

describe('retries', () => {
  const fault = { error: { message: 'no', type: 't', code: 'c' } };
  const good = { body: { id: 'c', object: 'chat.completion', created: 1, model: 'm', choices: [] } };
  const answer = (status, headers = {}) => ({ status, body: fault, headers: { 'retry-after-ms': '1', ...headers } });
  const table = [
    ...[408, 409, 429, 500, 502, 503, 504, 529].map((status) => [`${status} twice`, [answer(status), answer(status)], 3]),
    ...[429, 503].map((status) => [`${status} for ever`, Array(9).fill(answer(status)), 3]),
    ...[400, 401, 403, 404, 422].map((status) => [`${status} is final`, [answer(status)], 1]),
    ['x-should-retry: false', [answer(429, { 'x-should-retry': 'false' })], 1],
    ['x-should-retry: true', [answer(400, { 'x-should-retry': 'true' })], 2],
    [
      'retry-after and retry-after-ms',
      [{ ...answer(429), headers: { 'retry-after': '1' } }, answer(503, { 'retry-after-ms': '1100' })],
      3, [0.99, 1.09],
    ],
  ];
  for (const [title, answers, requests, pauses = []] of table) {
    test(title, async () => {
      const name = await tell([...answers, good]);
      const call = () => chat(about(name), { maxRetries: 2 });
      await (requests > answers.length ? call() : refused('APIError', call));
      const arrived = await seen(name);
      assert.equal(arrived.length, requests);
      // Only lower bounds: they are longer than what the client waits of its own accord.
      pauses.forEach((pause, turn) => assert.ok(arrived[turn + 1].at - arrived[turn].at >= pause));
    });
  }
});

describe('an upstream that dies in mid-stream', () => {
  const chunk = (content) => [null, {
    id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm',
    choices: [{ index: 0, delta: { content }, finish_reason: null }],
  }];

  for (const cut of [true, false]) {
    test(`chat completions, ${cut ? 'cut off' : 'ended early'}`, async () => {
      const name = await tell([{ body: sse([chunk('so'), chunk('far')]), cut }]);
      const text = [];
      const error = await refused('APIError', async () => {
        for await (const each of await chat({ ...about(name), stream: true })) text.push(each.choices[0].delta.content);
      });
      assert.deepEqual(text, ['so', 'far']);
      assert.equal(error.code, 'upstream_disconnected');
    });
  }

  test('responses', async () => {
    const response = { id: 'r', object: 'response', status: 'in_progress', model: 'm', output: [] };
    const created = { type: 'response.created', sequence_number: 0, response };
    const delta = {
      type: 'response.output_text.delta', sequence_number: 1, delta: 'so far', item_id: 'i', output_index: 0,
      content_index: 0, logprobs: [],
    };
    const events = [created, delta].map((event) => [event.type, event]);
    const name = await tell([{ body: sse(events), cut: true }]);
    const ask = () => client().responses.create({ model: 'demo/told', input: `told:${name}`, stream: true });
    const error = await refused('APIError', () => collected(ask()));
    assert.equal(error.code, 'upstream_disconnected');
  });

  test('whole answers', async () => {
    const name = await tell([{ body: { id: 'c', choices: [] }, cut: true }]);
    await refused('InternalServerError', () => chat(about(name)));
  });
});
