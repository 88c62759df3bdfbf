// The client of @hey-api/openapi-ts, used for a whole flow.
import { client } from "./sdk/client.gen.js";
import { createTask, getTask, listTasks, register, updateTask } from "./sdk/sdk.gen.js";
import type { Problem, TaskPublic } from "./sdk/types.gen.js";

function check(condition: boolean, what: unknown): asserts condition {
  if (!condition) throw new Error(JSON.stringify(what));
}

client.setConfig({ baseUrl: process.argv[2] ?? "" });
const email = `${crypto.randomUUID()}@example.com`;
const registered = await register({
  query: { with_api_key: true },
  body: { email, name: "Ada", password: "rainy Tuesday in Lisbon" },
});
const key = registered.data?.api_key?.key;
check(key !== undefined, registered.error);

const headers = { "X-API-Key": key };
for (const number of [0, 1, 2]) {
  const created = await createTask({
    headers: { ...headers, "Idempotency-Key": crypto.randomUUID() },
    body: { title: `Task ${number}` },
  });
  check(created.data !== undefined, created.error);
}

const tasks: TaskPublic[] = [];
let cursor: string | undefined;
do {
  const query = cursor === undefined ? { limit: 2 } : { limit: 2, cursor };
  const page = await listTasks({ headers, query });
  check(page.data !== undefined, page.error);
  tasks.push(...page.data.items);
  cursor = page.data.next_cursor ?? undefined;
} while (cursor !== undefined);
check(tasks.map((task) => task.title).join() === "Task 2,Task 1,Task 0", tasks);

const path = { task_id: tasks[0]?.id ?? "" };
const seen = await getTask({ headers, path });
const tag = seen.response?.headers.get("ETag") ?? "";
const change = { headers: { ...headers, "If-Match": tag }, path, body: { title: "Changed" } };
const changed = await updateTask(change);
check(changed.data?.title === "Changed", changed.error);
const stale = await updateTask(change);
const problem: Problem | undefined = stale.error;
check(problem?.status === 412, problem);
