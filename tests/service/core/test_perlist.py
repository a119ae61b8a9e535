"""What is made of a list is made once while it is remembered, and no more is remembered than is allowed."""

from service.core.perlist import PerList


def test_a_list_that_comes_again_is_not_made_anew_and_another_order_is_another_list():
    made = []
    lists = PerList(lambda each: made.append(each) or len(made))
    assert [lists.of(("a", "b")), lists.of(("b", "a")), lists.of(("a", "b"))] == [1, 2, 1]
    assert made == [("a", "b"), ("b", "a")]


def test_lists_are_bounded_by_who_is_in_them():
    made = []
    lists = PerList(lambda each: made.append(each) or len(made), most=10)
    for number in range(7):  # the fourth of three each is one too many
        lists.of((number, "x", "y"))
    assert sum(map(len, lists._made)) <= 10
    lists.of((6, "x", "y"))
    assert len(made) == 7
    long = tuple(range(11))
    assert lists.of(long) != lists.of(long), "one that is too long is made each time"
