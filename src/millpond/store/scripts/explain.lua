#!lua flags=allow-oom
-- explain: what a lane's jobs wait for, and who is before whom
--
-- uses base turn flow window cap view
-- ARGV  4 lane   or ''
--       5 flow   in its place, or ''
--       6 job    in its place, or ''
--       7 user   whose caps are told; '': the flow's
--
-- Replies  {'explained', JSON}   {org, lane, lines: the flows that take turns, at most 200, and those of
--                                the flow's user, flow, job, windows: what is
--                                used of each limit, caps: and of each cap of the user};
--                                job.before: jobs of its line before it, -1 if there are many
--          {'unknown', what}     lane, flow or job

local LINES_MOST, SEARCHED_MOST = 200, 100000

local lane, flow, job, whose = unpack(arg, 1, 4)

local told = {}
if job ~= '' then
  told.job = fields(P .. 'j:' .. job)
  flow = told.job.flow
  if not flow then return reply('unknown', 'job') end
end
if flow ~= '' then
  told.flow = flow_view(flow)
  lane = told.flow.lane
  if not lane then return reply('unknown', 'flow') end
  told.flow.id = flow
end
local windows
told.lane, windows = lane_view(lane)
if not told.lane then return reply('unknown', 'lane') end
local org = told.lane.org
told.org = fields(P .. 'o:' .. org)
told.org.id, told.lane.id = org, lane
told.slots = tonumber(redis.call('HGET', M, 'free:' .. told.lane.pool)) or 0
told.ready = redis.call('LLEN', P .. 'ready:' .. told.lane.pool)

local lines = {}
local function add_lines(class, user)
  for _, one in ipairs(redis.call('ZRANGE', flows_level(lane, class, user), 0, LINES_MOST - 1)) do
    local weight, pack = unpack(redis.call('HMGET', P .. 'f:' .. one, 'weight', 'pack'))
    local queued = in_line(one)
    if queued > 0 and #lines < LINES_MOST then
      lines[#lines + 1] = {class = class, user = user, flow = one, queued = queued, weight = tonumber(weight),
        pack = tonumber(pack), user_weight = tonumber(redis.call('HGET', P .. 'o:' .. org .. ':weights', user)) or 1}
    end
  end
end
for _, class in ipairs(redis.call('ZRANGE', classes_level(lane), 0, -1)) do
  for _, user in ipairs(redis.call('ZRANGE', users_level(lane, class), 0, LINES_MOST - 1)) do add_lines(class, user) end
end
local f = told.flow
if f and sits_out(lane, f.class, f.user) and not redis.call('ZSCORE', users_level(lane, f.class), f.user) then
  add_lines(f.class, f.user)
end

if told.job then
  told.job.id = job
  told.job.later_at = redis.call('ZSCORE', P .. 'f:' .. flow .. ':later', job) or nil
  told.job.parked = redis.call('ZSCORE', P .. 'f:' .. flow .. ':parked', job) or nil
  if told.job.state == 'queued' and not told.job.later_at and not told.job.parked then
    local q = P .. 'f:' .. flow .. ':q'
    local places = redis.call('LPOS', q, told.job.entry, 'MAXLEN', SEARCHED_MOST)
    -- (where the gaps are nobody knows: they are taken to be everywhere alike)
    told.job.before = places and math.floor(places * in_line(flow) / redis.call('LLEN', q)) or -1
  end
end
if whose == '' then whose = told.flow and told.flow.user or '' end
return reply('explained', written(told, {lines = lines, windows = windows, caps = cap_views(lane, whose)}))
