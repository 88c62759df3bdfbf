// The types of openapi-typescript, used by openapi-fetch for a whole flow.
import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

type Problem = components["schemas"]["Problem"];

function check(condition: boolean, what: unknown): asserts condition {
  if (!condition) throw new Error(JSON.stringify(what));
}

const baseUrl = process.argv[2] ?? "";
const open = createClient<paths>({ baseUrl });
const email = `${crypto.randomUUID()}@example.com`;
const registered = await open.POST("/v1/users", {
  params: { query: { with_api_key: true } },
  body: { email, name: "Ada", password: "rainy Tuesday in Lisbon" },
});
const key = registered.data?.api_key?.key;
check(key !== undefined, registered.error);

const client = createClient<paths>({ baseUrl, headers: { "X-API-Key": key } });
for (const number of [0, 1, 2]) {
  const created = await client.POST("/v1/tasks", {
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
    body: { title: `Task ${number}` },
  });
  check(created.data !== undefined, created.error);
}

const tasks: components["schemas"]["TaskPublic"][] = [];
let cursor: string | undefined;
do {
  const page = await client.GET("/v1/tasks", { params: { query: { limit: 2, cursor } } });
  check(page.data !== undefined, page.error);
  tasks.push(...page.data.items);
  cursor = page.data.next_cursor ?? undefined;
} while (cursor !== undefined);
check(tasks.map((task) => task.title).join() === "Task 2,Task 1,Task 0", tasks);

const task_id = tasks[0]?.id ?? "";
const seen = await client.GET("/v1/tasks/{task_id}", { params: { path: { task_id } } });
const header = { "If-Match": seen.response.headers.get("ETag") ?? "" };
const change = { params: { path: { task_id }, header }, body: { title: "Changed" } };
const changed = await client.PATCH("/v1/tasks/{task_id}", change);
check(changed.data?.title === "Changed", changed.error);
const stale = await client.PATCH("/v1/tasks/{task_id}", change);
const problem: Problem | undefined = stale.error;
check(problem?.status === 412, problem);
