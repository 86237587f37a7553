"""What the commands do (run, plan, report ...), and the one place where the parts are wired together.

running       prepare -> store -> plan -> train -> report
prepare       a spec, or a stored study, with its data and models found and checked
coordinator   the loop of a run: claim, hand out, write down
planner       what a run would do
reports       ranking, figures, page
studies       what is there
doctor        what is wrong
"""
