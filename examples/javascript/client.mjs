// Predictions over HTTP with what Node has (18 or newer), in the Open Inference Protocol.
//
// usage: node examples/javascript/client.mjs [HOST:PORT]          (the HTTP port, 127.0.0.1:8000 if not given)

const server = `http://${process.argv[2] ?? "127.0.0.1:8000"}`;
const MILLISECONDS_MAX = 30_000;

const ROWS = [
  [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87],
  [48, 1, 21.6, 87, 183, 103.2, 70, 3, 3.8918, 69],
];

/** The answer as JSON; without a body it is a GET. */
async function ask(path, body) {
  const options = { signal: AbortSignal.timeout(MILLISECONDS_MAX) };
  if (body !== undefined) {
    // The header is the deadline: what cannot be in time is refused instead of being computed for nobody.
    const headers = { "Content-Type": "application/json", "X-Request-Timeout": String(MILLISECONDS_MAX) };
    Object.assign(options, { method: "POST", headers, body: JSON.stringify(body) });
  }
  const reply = await fetch(server + path, options);
  const answer = await reply.json();
  // Errors have a status and a text that says what was expected.
  if (!reply.ok) throw new Error(`${reply.status} ${answer.error}`);
  return answer;
}

const { inputs } = await ask("/v2/models/diabetes");
for (const { name, datatype, shape } of inputs) console.log("takes", name, datatype, shape);

const measurements = { name: "measurements", datatype: "FP32", shape: [2, 10], data: ROWS };
const { outputs } = await ask("/v2/models/diabetes/infer", { inputs: [measurements] });
console.log("progression:", outputs[0].data);

// Calls in flight are batched by the server, whoever sends them.
const together = await Promise.all(ROWS.map((row) => ask("/predict/diabetes", { features: row })));
console.log("one by one:", together.map(({ prediction }) => prediction));

try {
  await ask("/v2/models/nothing/infer", { inputs: [measurements] });
} catch (error) {
  console.log("refused:", error.message);
}
